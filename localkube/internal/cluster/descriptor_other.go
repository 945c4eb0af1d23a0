//go:build unix && !linux

package cluster

import "golang.org/x/sys/unix"

// replace makes descriptor mean the open file of source.
func replace(source, descriptor int) error { return unix.Dup2(source, descriptor) }
