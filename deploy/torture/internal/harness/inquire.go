package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/sametick/sametick/deploy/torture/internal/follow"
	"github.com/sametick/sametick/deploy/torture/internal/rig"
)

// inquire tells of the clients that do not come on, and keeps what each process is doing meanwhile: once
// the run has ended nobody can say why.
func (r *run) inquire(ctx context.Context, stalled []follow.Place) {
	for _, p := range stalled {
		line := p.String()
		if p.Local != "" {
			line += " (" + rig.Ends(p.Local) + ")"
		}
		r.report.Unclean = append(r.report.Unclean, "stalled: "+line)
		r.say("stalled: %s", line)
	}
	if len(stalled) == 0 {
		return
	}
	for i, p := range r.suite.processes {
		if p == r.suite.extra {
			continue
		}
		path := filepath.Join(r.o.Dir, p.Name()+".goroutines")
		if err := goroutines(ctx, r.suite.ops[i], path); err != nil {
			r.say("goroutines of %s: %v", p.Name(), err)
		}
	}
}

// goroutines writes the stacks of a process, as its ops address gives them, to a file.
func goroutines(ctx context.Context, ops, path string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ops+"/debug/pprof/goroutine?debug=2", nil)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("create the file: %w", err)
	}
	_, err = io.Copy(file, resp.Body)
	return errors.Join(err, file.Close())
}
