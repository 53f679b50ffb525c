package rig

import "syscall"

// dieWithParent ends a child when the harness dies, whatever it dies of.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
