//go:build !linux

package controller

// codePages are the pages of the executable itself.
type codePages struct{}

// release does nothing where the system has no way to do it.
func (*codePages) release() {}
