package background_test

import (
	"errors"
	"net"
	"strconv"
	"testing"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/failure"
)

func TestListen(t *testing.T) {
	l, err := background.Listen(t.Context(), 0, "")
	if err != nil {
		t.Fatal(err)
	}
	taken := l.Addr().String()
	_, digits, err := net.SplitHostPort(taken)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := background.Listen(t.Context(), port, ""); !errors.Is(err, failure.Of(failure.Conflict)) {
		t.Errorf("a port in use: %v", err)
	}
	other, err := background.Listen(t.Context(), 0, taken)
	if err != nil {
		t.Fatalf("the address of last time is taken: %v", err)
	}
	_ = other.Close()
	_ = l.Close()
	again, err := background.Listen(t.Context(), 0, taken)
	if err != nil || again.Addr().String() != taken {
		t.Errorf("the address of last time is free, but got %v, %v", again, err)
	}
	_ = again.Close()
}
