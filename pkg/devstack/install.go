package devstack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// manager is how a system's package manager brings the servers.
type manager struct {
	program  string
	postgres string
	redis    string
	command  string // what a person would run; %s is the package
	script   string // what we run; $1 is the package
	root     bool   // must be root
}

func managers() []manager {
	return []manager{
		{"apt-get", "postgresql", "redis-server", "apt-get update && apt-get install -y --no-install-recommends %s", aptScript, true},
		{"dnf", "postgresql-server", "redis", "dnf install -y %s", `dnf install -y "$1" || { [ "$1" = redis ] && dnf install -y valkey; }`, true},
		{"apk", "postgresql", "redis", "apk add %s", `apk add --no-cache "$1"`, true},
		{"pacman", "postgresql", "redis", "pacman -Sy --noconfirm %s", `pacman -Sy --noconfirm "$1" || { [ "$1" = redis ] && pacman -S --noconfirm valkey; }`, true},
		{"brew", "postgresql@17", "redis", "brew install %s", `brew install "$1"`, false},
	}
}

// aptScript brings the programs without Debian's extras: for as long as it runs, a drop-in tells
// postgresql-common to make no cluster on port 5432, and a policy (unless the machine has one) tells
// packages to start no service. A redis-server unit may stay enabled for the next boot: it is disabled.
const aptScript = `
set -e
export DEBIAN_FRONTEND=noninteractive
dropin=/etc/postgresql-common/createcluster.d/sametick.conf policy=/usr/sbin/policy-rc.d made=
fresh=; command -v redis-server >/dev/null || fresh=1
cleanup() { rm -f "$dropin"; [ -z "$made" ] || rm -f "$policy"; }
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
mkdir -p "${dropin%/*}"
echo 'create_main_cluster = false' >"$dropin"
if ! [ -e "$policy" ]; then printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; made=1; fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends postgresql-common
apt-get install -y -qq --no-install-recommends "$1"
if [ "$1" = redis-server ] && [ -n "$fresh" ] && command -v systemctl >/dev/null; then systemctl disable -q redis-server || true; fi
`

// install brings a server's programs by the system's package manager, when that needs no question;
// else its error is the one command to run.
func install(ctx context.Context, log io.Writer, what string, pick func(manager) string) error {
	for _, m := range managers() {
		if _, err := exec.LookPath(m.program); err != nil {
			continue
		}
		command := fmt.Sprintf(m.command, pick(m))
		args := []string{"/bin/sh", "-c", m.script, "devstack", pick(m)}
		if m.root && os.Getuid() != 0 {
			if exec.CommandContext(ctx, "sudo", "-n", "true").Run() != nil {
				return fmt.Errorf("%s is not installed, and installing it needs root; run: sudo sh -c '%s'", what, command)
			}
			args = append([]string{"sudo", "-n"}, args...)
		}
		_, _ = fmt.Fprintf(log, "%s is not installed; installing it: %s\n", what, command)
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s is not installed, and installing it failed (%w); run yourself: %s\n%s", what, err, command, endOf(out.String()))
		}
		return nil
	}
	return fmt.Errorf("%s is not installed, there is no Docker, and none of the package managers apt-get, dnf, apk, pacman and brew: install PostgreSQL %d or newer and Redis 6.2 or newer, or set DATABASE_URL and REDIS_URL", what, oldestPostgres)
}

func endOf(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}
