package devstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// needBytes is about what a new data directory takes, with room to start in.
const needBytes = 120 << 20

// nativePostgres runs the binaries of a directory as an account.
type nativePostgres struct {
	bin     string
	account account
}

func (n nativePostgres) prepare(log io.Writer, dir string) (string, error) {
	return n.account.prepare(log, dir)
}

// initialise runs initdb into a directory beside the data and renames it when it is whole, so that an
// interrupted first start leaves nothing that looks like data.
func (n nativePostgres) initialise(ctx context.Context, p *Postgres, o PostgresOptions, lock *os.File) error {
	data, secret := filepath.Join(p.dir, "data"), filepath.Join(p.dir, "password")
	_, unclean := os.Stat(filepath.Join(data, "postmaster.pid"))
	if o.Fresh || (unclean == nil && o.Settings["fsync"] == "off") {
		if err := os.RemoveAll(data); err != nil {
			return unwritable(p.dir, err)
		}
	}
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
		b, err := os.ReadFile(secret)
		p.password = strings.TrimSpace(string(b))
		if err != nil || p.password == "" {
			return fmt.Errorf("the data in %s has lost its file `password`: remove %s to begin anew", data, p.dir)
		}
		return nil
	}
	if err := enoughSpace(p.dir); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(o.Log, "making a Postgres data directory in %s\n", data)
	p.password = rand.Text()
	if err := errors.Join(os.WriteFile(secret, []byte(p.password+"\n"), 0o600), n.account.give(secret)); err != nil {
		return unwritable(p.dir, err)
	}
	return n.initdb(ctx, p.dir, o.Settings["fsync"] == "off", lock)
}

func (n nativePostgres) initdb(ctx context.Context, dir string, noSync bool, lock *os.File) error {
	half := filepath.Join(dir, "data.new")
	if err := os.RemoveAll(half); err != nil {
		return fmt.Errorf("remove what an interrupted start left: %w", err)
	}
	args := []string{
		"-D", half, "-U", "sametick", "--pwfile", filepath.Join(dir, "password"), "-A", "scram-sha-256", "-E", "UTF8", "--locale=C",
	}
	if noSync {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(n.bin, "initdb"), args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.Dir = dir
	cmd.ExtraFiles = []*os.File{lock} // should this process die, the directory is taken until initdb has ended, too
	cmd.SysProcAttr = n.account.attributes()
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted while making the data directory: %w", context.Cause(ctx))
		}
		return fmt.Errorf("initdb in %s: %w: %s", dir, err, strings.TrimSpace(out.String()))
	}
	conf, err := os.OpenFile(filepath.Join(half, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return unwritable(half, err)
	}
	_, err = conf.WriteString("include_if_exists 'sametick.conf'\n")
	if err := errors.Join(err, conf.Close(), os.Rename(half, filepath.Join(dir, "data"))); err != nil {
		return unwritable(dir, err)
	}
	return nil
}

func enoughSpace(dir string) error {
	var fs syscall.Statfs_t
	if syscall.Statfs(dir, &fs) != nil {
		return nil // a file system that does not say: try
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < needBytes {
		return fmt.Errorf("only %d MB are free in %s, and Postgres needs about %d MB to begin: free some space, or set DATABASE_URL to a server of yours", free>>20, dir, needBytes>>20)
	}
	return nil
}

// nativeScript leaves starting, waiting and the reasons of a failure to pg_ctl. Should it have been
// told to let go while it was starting, it stops the server right after.
const nativeScript = `
"$1" -D "$2" -s -w -t 120 -l "$3" start >>"$3" 2>&1 </dev/null || exit 1
echo ready
read -r _
exec "$1" -D "$2" -s -w -t 60 -m fast stop >/dev/null 2>&1 </dev/null
`

func (n nativePostgres) run(ctx context.Context, p *Postgres, lock, log *os.File) (*leash, error) {
	data := filepath.Join(p.dir, "data")
	conf := filepath.Join(data, "sametick.conf")
	if err := removeStalePID(filepath.Join(data, "postmaster.pid")); err != nil {
		return nil, err
	}
	var text strings.Builder
	text.WriteString("# Written at each start.\n")
	for _, s := range p.settingList("127.0.0.1", p.port) {
		fmt.Fprintf(&text, "%s = '%s'\n", s.name, strings.NewReplacer("'", "''", "\n", " ").Replace(s.value))
	}
	if err := errors.Join(os.WriteFile(conf, []byte(text.String()), 0o600), n.account.give(conf), n.account.give(log.Name())); err != nil {
		return nil, unwritable(data, err)
	}
	return startLeash(ctx, nativeScript, []string{filepath.Join(n.bin, "pg_ctl"), data, log.Name()}, n.account.attributes(), p.dir, lock, log)
}

// removeStalePID removes what a crash left when its pid is a stranger's or a zombie's by now: Postgres
// itself would refuse to start. Called with the lock held, so only a server that somebody started past
// this package can be alive.
func removeStalePID(file string) error {
	pid := readPID(file)
	if pid <= 0 {
		return nil
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return nil
	}
	if alive(pid) && strings.HasPrefix(string(comm), "post") {
		return fmt.Errorf("another Postgres, process %d, already runs on %s: stop it (kill -INT %d)", pid, filepath.Dir(file), pid)
	}
	if err := removeIfThere(file); err != nil {
		return unwritable(filepath.Dir(file), err)
	}
	return nil
}

func (n nativePostgres) signal(p *Postgres, sig syscall.Signal) error {
	if pid := p.PID(); pid > 0 {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal Postgres: %w", err)
		}
	}
	return nil
}
