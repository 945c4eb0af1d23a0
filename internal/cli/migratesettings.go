package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Annotations of the ConfigMap with settings, by which migrate knows its own.
const (
	// migratedAnnotation lists the keys that migrate wrote, with commas between them.
	migratedAnnotation = "fleet.bowline.dev/migrated-settings"
	// createdAnnotation with the value "migrate" says that migrate created the object.
	createdAnnotation = "fleet.bowline.dev/created-by"
	createdByMigrate  = "migrate"
)

// migrated returns the keys that migrate wrote to a ConfigMap.
func migrated(m *corev1.ConfigMap) []string {
	return slices.DeleteFunc(strings.Split(m.Annotations[migratedAnnotation], ","), func(key string) bool { return key == "" })
}

// writeSettings adds settings to those that the cluster keeps, in place of values
// that it has, notes which they are, and removes those that an earlier call wrote and
// this one does not. An unknown setting or a bad value is an error, and nothing is
// written.
func writeSettings(ctx context.Context, c client.Client, name types.NamespacedName, values map[string]string) error {
	s := engineSettings{name: name, values: values}
	var scratch controllerOptions
	cmd := &cobra.Command{}
	scratch.addEngine(cmd)
	if err := s.apply(cmd.Flags()); err != nil {
		return err
	}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name, Annotations: map[string]string{createdAnnotation: createdByMigrate}}}
	setMigrated(m, values)
	err := c.Create(ctx, m)
	if !apierrors.IsAlreadyExists(err) {
		return s.written(err)
	}
	m = &corev1.ConfigMap{}
	if err := c.Get(ctx, name, m); err != nil {
		return s.written(err)
	}
	before := m.DeepCopy()
	setMigrated(m, values)
	return s.written(c.Patch(ctx, m, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})))
}

// setMigrated makes settings those that migrate wrote. One that somebody else set to
// the same value stays theirs.
func setMigrated(m *corev1.ConfigMap, values map[string]string) {
	own := migrated(m)
	maps.DeleteFunc(m.Data, func(key, _ string) bool { return slices.Contains(own, key) })
	var written []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if there, ok := m.Data[key]; !ok || there != values[key] {
			written = append(written, key)
		}
	}
	if m.Data == nil {
		m.Data = map[string]string{}
	}
	maps.Copy(m.Data, values)
	metav1.SetMetaDataAnnotation(&m.ObjectMeta, migratedAnnotation, strings.Join(written, ","))
}

func (s engineSettings) written(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write %s: %w", s, err)
}

// keptByMigrate reads the ConfigMap with settings, nil where migrate left nothing in it.
func keptByMigrate(ctx context.Context, c client.Reader, name types.NamespacedName) (*corev1.ConfigMap, error) {
	m := &corev1.ConfigMap{}
	err := c.Get(ctx, name, m)
	_, noted := m.Annotations[migratedAnnotation]
	switch {
	case apierrors.IsNotFound(err), err == nil && !noted:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read ConfigMap/%s: %w", name, err)
	}
	return m, nil
}

// removeSettings removes the settings that migrate wrote, and the ConfigMap if migrate
// created it and nobody else keeps anything in it. It says what it did.
func removeSettings(ctx context.Context, c client.Client, name types.NamespacedName) (string, error) {
	m, err := keptByMigrate(ctx, c, name)
	if err != nil {
		return "", err
	}
	if m == nil {
		return "there were none of this command", nil
	}
	before, own := m.DeepCopy(), migrated(m)
	maps.DeleteFunc(m.Data, func(key, _ string) bool { return slices.Contains(own, key) })
	if m.Annotations[createdAnnotation] == createdByMigrate && len(m.Data)+len(m.BinaryData) == 0 {
		err := c.Delete(ctx, m, client.Preconditions{UID: &m.UID, ResourceVersion: &m.ResourceVersion})
		if client.IgnoreNotFound(err) != nil {
			return "", fmt.Errorf("delete ConfigMap/%s: %w", name, err)
		}
		return "removed ConfigMap/" + name.String(), nil
	}
	// What is left in it is somebody else's, and so is the object from then on.
	delete(m.Annotations, migratedAnnotation)
	delete(m.Annotations, createdAnnotation)
	if err := c.Patch(ctx, m, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return "", fmt.Errorf("remove settings from ConfigMap/%s: %w", name, err)
	}
	if len(own) == 0 {
		return "ConfigMap/" + name.String() + " stays, with what others set in it", nil
	}
	return "removed " + strings.Join(own, ", ") + " from ConfigMap/" + name.String() + ", and left what others set in it", nil
}
