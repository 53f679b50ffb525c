//go:build !linux

package rig

import "syscall"

// dieWithParent can promise nothing here: other kernels do not tell a child that its parent died.
func dieWithParent() *syscall.SysProcAttr { return nil }
