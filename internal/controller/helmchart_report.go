package controller

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/artifactserve"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/report"
)

// file is the chart as others get it.
func (r *helmCharts) file(m madeChart) artifactserve.File {
	return artifactserve.File{
		Name: m.given.Name + "-" + m.given.Revision + ".tgz", Digest: m.chart.Digest, Size: m.chart.Size,
		Open: func() (io.ReadCloser, error) { return r.store.Open(m.chart.Digest) },
	}
}

// report puts what a run came to into the status and returns when to look again. After a
// failure the last artifact stays.
func (r *helmCharts) report(hc *sourcev1.HelmChart, got madeChart, err error) time.Duration {
	name := client.ObjectKeyFromObject(hc)
	attempt, now := r.attempts.of(name), r.clock.Now()
	hc.Status.ObservedGeneration = hc.Generation
	if asked, ok := hc.Annotations[meta.ReconcileRequestAnnotation]; ok {
		hc.Status.LastHandledReconcileAt = asked
	}
	if err != nil {
		return r.reportFailure(hc, attempt, now, err)
	}
	attempt.failures = 0
	before := hc.Status.Artifact
	hc.Status.Artifact = r.published.statusOfFile(helmChartKey(name), got.artifact(), r.file(got), before, now)
	hc.Status.URL = hc.Status.Artifact.URL
	hc.Status.ObservedSourceArtifactRevision = got.source
	hc.Status.ObservedChartName = got.given.Name
	hc.Status.ObservedValuesFiles = nil
	if hc.Spec.IgnoreMissingValuesFiles {
		hc.Status.ObservedValuesFiles = got.given.ValuesFiles
	}
	reason, message := summary(got)
	if !same(before, hc.Status.Artifact) {
		r.events.Event(hc, corev1.EventTypeNormal, reason, message)
	}
	reportSigned(hc, "version "+got.given.Revision, got.verified)
	report.Ready(hc, reason, message)
	report.Stored(hc, reason, message)
	return jitter(max(hc.GetRequeueAfter(), shortestWait), string(hc.UID))
}

// summary says what was done, in the words that the toolkit's users know.
func summary(got madeChart) (reason, message string) {
	reason, action := sourcev1.ChartPullSucceededReason, "pulled"
	if got.given.Packaged {
		reason, action = sourcev1.ChartPackageSucceededReason, "packaged"
	}
	message = fmt.Sprintf("%s '%s' chart with version '%s'", action, got.given.Name, got.given.Revision)
	if len(got.given.ValuesFiles) > 0 {
		message += " and merged values files [" + strings.Join(got.given.ValuesFiles, " ") + "]"
	}
	return reason, message
}

func (r *helmCharts) reportFailure(hc *sourcev1.HelmChart, a *attempt, now time.Time, err error) time.Duration {
	reason, isBuilding := chartReason(err)
	if c := report.Condition(hc, meta.ReadyCondition); c == nil || c.Message != err.Error() {
		r.events.Event(hc, corev1.EventTypeWarning, reason, clip(err.Error()))
	}
	terminal := failure.Terminal(err)
	report.Failed(hc, reason, err.Error(), terminal)
	switch {
	case reason == reasonChartVerification:
		report.BuildFailed(hc, reason, err.Error())
		report.SourceVerified(hc, metav1.ConditionFalse, sourcev1.VerificationError, err.Error())
	case isBuilding:
		report.BuildFailed(hc, reason, err.Error())
	default:
		report.FetchFailed(hc, reason, err.Error())
	}
	return a.failed(now, terminal, hc.GetRequeueAfter())
}

// chartReason returns the reason that the toolkit's users know.
func chartReason(err error) (reason string, isBuilding bool) {
	var e *chartError
	var login *loginError
	switch {
	case errors.As(err, &e) && e.building:
		return e.reason, true
	case errors.As(err, &login), errors.Is(err, failure.Of(failure.Denied)):
		return sourcev1.AuthenticationFailedReason, false
	case e != nil:
		return e.reason, false
	default:
		return meta.FailedReason, false
	}
}
