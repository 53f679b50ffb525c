package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/PID/stat (Linux: USER_HZ, 100 on every platform that Go runs on).
const tick = 10 * time.Millisecond

// stat is what /proc/PID/stat tells of a process (proc_pid_stat(5)).
type stat struct {
	parent        int
	own, children time.Duration // children: those that have ended and were waited for
}

func readStat(path string) (s stat, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	// The second field is the name in parentheses, and may hold anything.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const ppid, utime, cstime = 4 - 3, 14 - 3, 17 - 3
	if len(fields) <= cstime {
		return s, fmt.Errorf("%s: %q is no process state", path, text)
	}
	if s.parent, err = strconv.Atoi(fields[ppid]); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	var ticks [4]int64
	for i := range ticks {
		if ticks[i], err = strconv.ParseInt(fields[utime+i], 10, 64); err != nil {
			return s, fmt.Errorf("%s: %w", path, err)
		}
	}
	s.own, s.children = time.Duration(ticks[0]+ticks[1])*tick, time.Duration(ticks[2]+ticks[3])*tick
	return s, nil
}

func processorTime(pid int) (own, children time.Duration, err error) {
	s, err := readStat("/proc/" + strconv.Itoa(pid) + "/stat")
	return s.own, s.children, err
}

// OwnCPU is the processor time that this program has used.
func OwnCPU() (time.Duration, error) {
	own, _, err := processorTime(os.Getpid())
	if err != nil {
		return 0, fmt.Errorf("read the processor time of this program: %w", err)
	}
	return own, nil
}

// ServersCPU is the processor time that Postgres, with all its processes past and present, and Redis
// have used.
func (r *Rig) ServersCPU() (postgres, redis time.Duration, err error) {
	if redis, _, err = processorTime(r.servers.redis.PID()); err != nil {
		return 0, 0, fmt.Errorf("read the processor time of Redis: %w", err)
	}
	for {
		all, steady, err := family(r.servers.postgres.PID())
		if err != nil {
			return 0, 0, fmt.Errorf("read the processor time of Postgres: %w", err)
		}
		if steady {
			return all, redis, nil
		}
	}
}

// family is the processor time of a process and its children past and present. It is not steady when one ended
// meanwhile, and may have been counted in neither place.
func family(pid int) (all time.Duration, steady bool, err error) {
	own, ended, err := processorTime(pid)
	if err != nil {
		return 0, false, err
	}
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, false, fmt.Errorf("list the processes: %w", err)
	}
	all = own + ended
	for _, path := range paths {
		if s, err := readStat(path); err == nil && s.parent == pid {
			all += s.own
		}
	}
	_, after, err := processorTime(pid)
	return all, ended == after, err
}
