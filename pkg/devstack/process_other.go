//go:build !linux

package devstack

import "syscall"

// dieWithParent has no equivalent here: after a SIGKILL of this process the servers stay, and the next
// Start in the same directory names them.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}
