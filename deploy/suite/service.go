package suite

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sametick/sametick/pkg/devstack"
)

// readyTimeout bounds how long a service may take to become ready.
const readyTimeout = 30 * time.Second

// service is one running process of the suite.
type service struct {
	name     string
	proc     *devstack.Process
	log      *logFile
	stopping chan struct{} // closed before we stop it: its end is no news then
}

// binary is where a service's executable is.
func (s *Suite) binary(name string) string {
	dir := s.o.BinDir
	if dir == "" {
		dir = filepath.Join(s.o.Dir, "bin")
	}
	return filepath.Join(dir, name)
}

// build compiles the services unless they were given.
func (s *Suite) build(ctx context.Context) error {
	if s.o.BinDir != "" {
		return nil
	}
	s.say("building the services (the first time takes a minute or two)")
	for _, name := range Names() {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", s.binary(name), "./services/"+name+"/cmd/"+name)
		cmd.Dir = s.o.Root
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", name, err, lastLines(out, 10))
		}
	}
	return nil
}

func (s *Suite) startServices(ctx context.Context) error {
	for _, name := range Names() {
		if err := s.StartService(name); err != nil {
			return err
		}
	}
	for _, svc := range s.services {
		if err := s.awaitReady(ctx, svc); err != nil {
			return err
		}
	}
	return nil
}

// StartService starts one service, for the first time or after StopService.
func (s *Suite) StartService(name string) error {
	log, err := openLog(filepath.Join(s.o.Dir, "log", name+".log"), name, s.o.Log)
	if err != nil {
		return err
	}
	cmd := exec.Command(s.binary(name)) //nolint:noctx // a binary of ours, which outlives this call
	cmd.Env, cmd.Dir = s.environment(name), s.o.Dir
	cmd.Stdout, cmd.Stderr = log, log
	proc, err := devstack.StartProcess(cmd, syscall.SIGTERM)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	svc := &service{name: name, proc: proc, log: log, stopping: make(chan struct{})}
	s.services = append(s.services, svc)
	go func() { // ends with the process, which stop waits for
		<-proc.Done()
		// First whether we ended it: a select over both would choose at random.
		select {
		case <-svc.stopping:
			return
		default:
		}
		select {
		case s.died <- svc:
		default:
		}
	}()
	return nil
}

// AwaitReady waits until a service that StartService started answers /readyz.
func (s *Suite) AwaitReady(ctx context.Context, name string) error {
	for _, svc := range s.services {
		if svc.name == name {
			return s.awaitReady(ctx, svc)
		}
	}
	return fmt.Errorf("%s was not started", name)
}

func (s *Suite) awaitReady(ctx context.Context, svc *service) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	url := "http://" + local(s.o.Ports[svc.name].Ops) + "/readyz"
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	last := "no answer"
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("ask %s: %w", url, err)
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
			last = res.Status
		}
		select {
		case <-svc.proc.Done():
			return fmt.Errorf("%s did not start: %w\n%s", svc.name, svc.exit(), svc.log.last())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready (%s at %s), see %s\n%s", svc.name, last, url, svc.log.name, svc.log.last())
		case <-tick.C:
		}
	}
}

// StopService signals a service and waits for its end; the answer is how it ended.
func (s *Suite) StopService(name string, sig syscall.Signal) error {
	for i, svc := range s.services {
		if svc.name == name {
			s.services = append(s.services[:i], s.services[i+1:]...)
			return svc.signal(sig)
		}
	}
	return fmt.Errorf("%s does not run", name)
}

func (svc *service) stop() error { return svc.signal(syscall.SIGTERM) }

func (svc *service) signal(sig syscall.Signal) error {
	close(svc.stopping)
	err := svc.proc.Stop(sig)
	if err == nil && svc.proc.Err() != nil {
		err = fmt.Errorf("%s: %w", svc.name, svc.proc.Err())
	}
	return errors.Join(err, svc.log.Close())
}

// exit is how the process ended, as an error in any case.
func (svc *service) exit() error {
	if err := svc.proc.Err(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

func lastLines(b []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Mkdir makes the directory of a suite where the account of Postgres can reach it.
func Mkdir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make %s: %w", dir, err)
	}
	return nil
}
