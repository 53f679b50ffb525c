package rig

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
)

// What proc_pid_status(5) tells of memory.
var (
	peak     = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)
	resident = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB$`)
)

// PeakMemory is the most resident memory of the process, in bytes, since it started or ForgetPeak.
func (p *Process) PeakMemory() (int64, error) { return p.memory(peak) }

// Memory is the resident memory of the process now, in bytes.
func (p *Process) Memory() (int64, error) { return p.memory(resident) }

func (p *Process) memory(line *regexp.Regexp) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", p.name, err)
	}
	found := line.FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("read the memory of %s: its status has no line of %s", p.name, line)
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
