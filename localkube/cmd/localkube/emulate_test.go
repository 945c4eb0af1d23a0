package main

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A cluster is upgraded by a start that emulates no more, and keeps what it has, also the
// nodes that somebody else made.
func TestUpgradeOfAnEmulation(t *testing.T) {
	p := newProgram(t)
	p.must("start", "one", "--emulate", "1.35", "--nodes", "1")
	version := func() string {
		v, err := p.client("one").Discovery().ServerVersion()
		if err != nil {
			t.Fatal(err)
		}
		return v.EmulationMajor + "." + v.EmulationMinor
	}
	if v := version(); v != "1.35" {
		t.Errorf("emulates %q", v)
	}
	p.write("one", "kept")
	node := newNodeOfSomebody()
	if _, err := p.client("one").CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ready := func() string {
		n, err := p.client("one").CoreV1().Nodes().Get(t.Context(), node.Name, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return ""
			}
		}
		return fmt.Sprintf("the node is not ready: %+v", n.Status.Conditions)
	}
	eventually(t, ready)

	p.must("stop", "one")
	p.must("start", "one", "--emulate", "", "--nodes", "0")
	if v := version(); v != "1.36" {
		t.Errorf("after the upgrade it emulates %q", v)
	}
	p.expectWritten("one", "kept")
	eventually(t, ready)
	nodes, err := p.client("one").CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 {
		t.Errorf("nodes that are wanted no more: %d, %v", len(nodes.Items)-1, err)
	}
}

func newNodeOfSomebody() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "machine", Labels: map[string]string{"localkube.bowline.dev/simulated": "machine"}},
		Spec:       corev1.NodeSpec{ProviderID: "local://machine"},
	}
}
