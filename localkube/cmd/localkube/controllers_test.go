package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// TestWholeCluster runs everything in one cluster, because that takes most of the time.
func TestWholeCluster(t *testing.T) {
	p := newProgram(t)
	p.must("start", "whole", "--nodes", "2", "--no-fsync")
	client := p.client("whole")
	expectOneLoopbackPort(t, p.status("whole"))
	expectNoInotify(t, p.status("whole"))
	for _, c := range []struct {
		name string
		test func(*testing.T, *kubernetes.Clientset)
	}{
		{"pods run", podsRun},
		{"pods fail", podsFail},
		{"jobs end", jobsEnd},
		{"volumes are provided", volumesAreProvided},
		{"quota and limits hold", quotaHolds},
		{"certificates are signed", certificatesAreSigned},
		{"service accounts have tokens", serviceAccountsHaveTokens},
		{"namespaces go with what is in them", namespacesGo},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, client) })
	}
	t.Run("fewer nodes", func(t *testing.T) {
		p.must("stop", "whole")
		p.must("start", "whole", "--nodes", "1")
		nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(nodes.Items) != 1 {
			t.Errorf("%d nodes, want 1", len(nodes.Items))
		}
	})
}

func volumesAreProvided(t *testing.T, client *kubernetes.Clientset) {
	claims := client.CoreV1().PersistentVolumeClaims(newNamespace(t, client))
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			},
		},
	}
	if _, err := claims.Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var volume string
	eventually(t, func() string {
		got, err := claims.Get(t.Context(), "data", metav1.GetOptions{})
		if err != nil || got.Status.Phase != corev1.ClaimBound {
			return fmt.Sprintf("the claim is not bound: %+v, %v", got.Status, err)
		}
		volume = got.Spec.VolumeName
		return ""
	})
	if err := claims.Delete(t.Context(), "data", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		_, err := client.CoreV1().PersistentVolumes().Get(t.Context(), volume, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Sprintf("the claim is gone, the volume stays: %v", err)
		}
		return ""
	})
}

func quotaHolds(t *testing.T, client *kubernetes.Clientset) {
	namespace := newNamespace(t, client)
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "few"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
	}
	if _, err := client.CoreV1().ResourceQuotas(namespace).Create(t.Context(), quota, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		_, err := client.CoreV1().Pods(namespace).Create(t.Context(), newPod("over-quota", nil, "image"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsForbidden(err) {
			return fmt.Sprintf("a pod over the quota: %v", err)
		}
		return ""
	})
	limited := newNamespace(t, client)
	limits := &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "small"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Default: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")},
		}}},
	}
	if _, err := client.CoreV1().LimitRanges(limited).Create(t.Context(), limits, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		pod, err := client.CoreV1().Pods(limited).Create(t.Context(), newPod("limited", nil, "image"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil || pod.Spec.Containers[0].Resources.Limits.Cpu().String() != "1" {
			return fmt.Sprintf("the default limit is not set: %v", err)
		}
		return ""
	})
}

func certificatesAreSigned(t *testing.T, client *kubernetes.Clientset) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "someone"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	requests := client.CertificatesV1().CertificateSigningRequests()
	request, err := requests.Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "someone"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: certificatesv1.KubeAPIServerClientSignerName,
			Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	request.Status.Conditions = append(request.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test", Message: "Test",
	})
	if _, err := requests.UpdateApproval(t.Context(), request.Name, request, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		got, err := requests.Get(t.Context(), request.Name, metav1.GetOptions{})
		if err != nil || len(got.Status.Certificate) == 0 {
			return fmt.Sprintf("approved and not signed: %v", err)
		}
		return ""
	})
}

func serviceAccountsHaveTokens(t *testing.T, client *kubernetes.Clientset) {
	namespace := newNamespace(t, client)
	eventually(t, func() string {
		token, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil || token.Status.Token == "" {
			return fmt.Sprintf("no token: %v", err)
		}
		review, err := client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token.Status.Token},
		}, metav1.CreateOptions{})
		if err != nil || review.Status.User.Username != "system:serviceaccount:"+namespace+":default" {
			return fmt.Sprintf("the token is not accepted: %v", err)
		}
		return ""
	})
	eventually(t, func() string {
		_, err := client.CoreV1().ConfigMaps(namespace).Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
		if err != nil {
			return "the certificate authority is not published: " + err.Error()
		}
		return ""
	})
}

func namespacesGo(t *testing.T, client *kubernetes.Clientset) {
	namespace := newNamespace(t, client)
	if _, err := client.CoreV1().Pods(namespace).Create(t.Context(), newPod("left", nil, "image"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		_, err := client.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Sprintf("the namespace stays: %v", err)
		}
		return ""
	})
}

func jobsEnd(t *testing.T, client *kubernetes.Clientset) {
	jobs := client.BatchV1().Jobs(newNamespace(t, client))
	once := int32(0)
	for _, c := range []struct {
		name, reason string
		annotations  map[string]string
		want         batchv1.JobConditionType
	}{
		{"good", "its pod succeeds", nil, batchv1.JobComplete},
		{"bad", "a crash that must not be restarted fails the pod", map[string]string{"localkube.bowline.dev/fail": "crash"}, batchv1.JobFailed},
	} {
		pod := newPod(c.name, c.annotations, "image")
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		job := &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: c.name},
			Spec:       batchv1.JobSpec{BackoffLimit: &once, Template: corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}},
		}
		if _, err := jobs.Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string {
			got, err := jobs.Get(t.Context(), c.name, metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			for _, condition := range got.Status.Conditions {
				if condition.Type == c.want && condition.Status == corev1.ConditionTrue {
					return ""
				}
			}
			return fmt.Sprintf("job %s (%s): %+v", c.name, c.reason, got.Status)
		})
	}
}
