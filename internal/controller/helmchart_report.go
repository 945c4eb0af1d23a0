package controller

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/artifactserve"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/report"
)

// told is a chart with what is said of it.
func (r *helmCharts) told(hc *sourcev1.HelmChart, got madeChart) fetched {
	reason, message := summary(got)
	return fetched{
		artifact: got.artifact(), reason: reason, message: message, happened: reason, event: message,
		file: &artifactserve.File{
			Name: got.given.Name + "-" + got.given.Revision + ".tgz", Digest: got.chart.Digest, Size: got.chart.Size,
			Open: func() (io.ReadCloser, error) { return r.store.Open(got.chart.Digest) },
		},
		observe: func() {
			hc.Status.ObservedSourceArtifactRevision = got.source
			hc.Status.ObservedChartName = got.given.Name
			hc.Status.ObservedValuesFiles = nil
			if hc.Spec.IgnoreMissingValuesFiles {
				hc.Status.ObservedValuesFiles = got.given.ValuesFiles
			}
			reportSigned(hc, "version "+got.given.Revision, got.verified)
		},
	}
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

// failed implements sourceKind.
func (r *helmCharts) failed(o report.Conditioned, reason string, err error) {
	_, isBuilding := chartReason(err)
	switch {
	case reason == reasonChartVerification:
		report.BuildFailed(o, reason, err.Error())
		report.SourceVerified(o, metav1.ConditionFalse, sourcev1.VerificationError, err.Error())
	case isBuilding:
		report.BuildFailed(o, reason, err.Error())
	default:
		report.FetchFailed(o, reason, err.Error())
	}
}

// reason implements sourceKind.
func (r *helmCharts) reason(err error) string {
	reason, _ := chartReason(err)
	return reason
}

// chartReason returns the reason, and whether it is one of building.
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
