package release

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Get implements the client for Helm's driver.
func (s *session) Get(_ context.Context, name string, o metav1.GetOptions) (*corev1.Secret, error) {
	secret, err := s.SecretInterface.Get(s.ctx, name, o) //nolint:contextcheck // the driver has none to pass on
	if s.err = err; err != nil {
		return nil, err
	}
	s.read[name] = secret
	return secret, nil
}

// List implements the client for Helm's driver.
func (s *session) List(_ context.Context, o metav1.ListOptions) (*corev1.SecretList, error) {
	o.FieldSelector = ofHelm
	list, err := s.SecretInterface.List(s.ctx, o) //nolint:contextcheck // the driver has none to pass on
	if s.err = err; err != nil {
		return nil, err
	}
	for i := range list.Items {
		s.read[list.Items[i].Name] = &list.Items[i]
	}
	return list, nil
}

// Create implements the client for Helm's driver.
func (s *session) Create(_ context.Context, secret *corev1.Secret, o metav1.CreateOptions) (*corev1.Secret, error) {
	if err := s.mark(secret); err != nil {
		return nil, err
	}
	o.FieldManager = Manager
	s.wrote, s.err = s.SecretInterface.Create(s.ctx, secret, o) //nolint:contextcheck // the driver has none to pass on
	return s.wrote, s.err
}

// Update implements the client for Helm's driver. It names the version that was read.
func (s *session) Update(_ context.Context, secret *corev1.Secret, o metav1.UpdateOptions) (*corev1.Secret, error) {
	if err := s.mark(secret); err != nil {
		return nil, err
	}
	secret.ResourceVersion = s.record.ResourceVersion
	o.FieldManager = Manager
	s.wrote, s.err = s.SecretInterface.Update(s.ctx, secret, o) //nolint:contextcheck // the driver has none to pass on
	return s.wrote, s.err
}

func (s *session) mark(secret *corev1.Secret) error {
	marks, err := json.Marshal(s.record.Marks)
	if err != nil {
		return fmt.Errorf("write the marks: %w", err)
	}
	secret.Annotations = map[string]string{MarksAnnotation: string(marks)}
	return nil
}
