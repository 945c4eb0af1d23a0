package provision

import (
	"testing"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	testkit.Main(m)
}
