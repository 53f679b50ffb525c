package devstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Images used where Docker is all there is.
const (
	postgresImage = "postgres:17-alpine"
	redisImage    = "redis:7-alpine"
)

// docker is the path of a client whose engine answers.
type docker string

func findDocker(ctx context.Context) (docker, bool) {
	path, err := exec.LookPath("docker")
	if err != nil {
		return "", false
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = exec.CommandContext(ctx, path, "version", "--format", "{{.Server.Version}}").Run()
	return docker(path), err == nil
}

func (d docker) run(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, string(d), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// pull fetches an image that is not here yet; that takes a while, and says so.
func (d docker) pull(ctx context.Context, log io.Writer, image string) error {
	if d.run(ctx, "image", "inspect", image) == nil {
		return nil
	}
	_, _ = fmt.Fprintf(log, "pulling %s\n", image)
	return d.run(ctx, "pull", "--quiet", image)
}

// container names what belongs to a directory, so that the next start finds what a crash left.
func container(kind, dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "sametick-" + kind + "-" + hex.EncodeToString(sum[:6])
}

// dockerPostgres keeps the data in a named volume: files of a bind mount would be another account's.
type dockerPostgres struct{ docker }

func (d dockerPostgres) prepare(_ io.Writer, dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", unwritable(dir, err)
	}
	return dir, nil
}

// initialise leaves the making of data to the image's entry point. That takes a half-made volume for a
// whole one, so a volume counts only once its server has answered (see run).
func (d dockerPostgres) initialise(ctx context.Context, p *Postgres, o PostgresOptions, _ *os.File) error {
	secret := filepath.Join(p.dir, "docker.password")
	if err := d.pull(ctx, o.Log, postgresImage); err != nil {
		return err
	}
	_ = d.docker.run(ctx, "rm", "--force", "--volumes", container("postgres", p.dir)) // what a killed run left
	b, err := os.ReadFile(secret)
	if _, made := os.Stat(d.mark(p)); err == nil && made == nil && !o.Fresh {
		p.password = strings.TrimSpace(string(b))
		return nil
	}
	_ = d.docker.run(ctx, "volume", "rm", "--force", container("postgres", p.dir))
	p.password = rand.Text()
	if err := errors.Join(removeIfThere(d.mark(p)), os.WriteFile(secret, []byte(p.password+"\n"), 0o600)); err != nil {
		return unwritable(p.dir, err)
	}
	return nil
}

func (d dockerPostgres) mark(p *Postgres) string { return filepath.Join(p.dir, "docker.ready") }

// dockerScript asks by TCP, since the entry point's own server for making the data has a socket only.
const dockerScript = `
docker=$1 name=$2 log=$3
shift 3
fail() { "$docker" logs "$name" >>"$log" 2>&1; "$docker" rm -f "$name" >/dev/null 2>&1; exit 1; }
"$docker" rm -f "$name" >/dev/null 2>&1
"$docker" run --detach --name "$name" "$@" >>"$log" 2>&1 || fail
n=0
until "$docker" exec "$name" pg_isready -q -h 127.0.0.1 -U sametick >/dev/null 2>&1; do
  n=$((n+1))
  [ "$("$docker" inspect -f '{{.State.Running}}' "$name" 2>/dev/null)" = true ] && [ $n -lt 600 ] || fail
  sleep 0.2
done
echo ready
read -r _
"$docker" stop -t 60 "$name" >/dev/null 2>&1
"$docker" rm -f "$name" >/dev/null 2>&1
`

func (d dockerPostgres) run(ctx context.Context, p *Postgres, lock, log *os.File) (*leash, error) {
	env := filepath.Join(p.dir, "docker.env") // not on a command line, which every user can read
	text := "POSTGRES_USER=sametick\nPOSTGRES_DB=sametick\nPOSTGRES_INITDB_ARGS=--locale=C --encoding=UTF8\nPOSTGRES_PASSWORD=" + p.password + "\n"
	if err := os.WriteFile(env, []byte(text), 0o600); err != nil {
		return nil, unwritable(p.dir, err)
	}
	name := container("postgres", p.dir)
	args := slices.Concat(
		[]string{string(d.docker), name, log.Name(), "--env-file", env, "--shm-size", "512m", "--volume", name + ":/var/lib/postgresql/data"},
		[]string{"--publish", "127.0.0.1:" + strconv.Itoa(p.port) + ":5432", postgresImage, "postgres"}, d.settings(p),
	)
	l, err := startLeash(ctx, dockerScript, args, &syscall.SysProcAttr{}, p.dir, lock, log)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.mark(p), nil, 0o600); err != nil {
		return nil, errors.Join(unwritable(p.dir, err), l.release())
	}
	return l, nil
}

func (d dockerPostgres) settings(p *Postgres) []string {
	var args []string
	for _, s := range p.settingList("*", 5432) {
		args = append(args, "-c", s.name+"="+s.value)
	}
	return args
}

func (d dockerPostgres) signal(p *Postgres, sig syscall.Signal) error {
	return d.docker.run(context.Background(), "kill", "--signal", strconv.Itoa(int(sig)), container("postgres", p.dir))
}

// redisContainer is the attached client as a process: it passes SIGTERM on, and ends with the server.
func (d docker) redisContainer(dir, port string, conf []byte, args []string) *exec.Cmd {
	all := append([]string{
		"run", "--rm", "--interactive", "--name", container("redis", dir), "--publish", "127.0.0.1:" + port + ":6379", redisImage, "redis-server",
	}, args...)
	cmd := exec.Command(string(d), append(all, "-")...) //nolint:noctx // the client found; outlives any context
	cmd.Stdin = bytes.NewReader(conf)
	return cmd
}

func removeIfThere(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
