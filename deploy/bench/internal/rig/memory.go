package rig

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
)

var peak = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)

// PeakMemory is the most resident memory of the process, in bytes, since it started or ForgetPeak (proc_pid_status(5)).
func (p *Process) PeakMemory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", p.name, err)
	}
	found := peak.FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("read the memory of %s: no VmHWM in its status", p.name)
	}
	kB, err := strconv.ParseInt(string(found[1]), 10, 64)
	return kB << 10, err
}

// ForgetPeak makes PeakMemory begin anew (proc_pid_clear_refs(5)).
func (p *Process) ForgetPeak() error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		return fmt.Errorf("forget the memory of %s: %w", p.name, err)
	}
	return nil
}
