// Package importer brings an XES log into Sametick: a trace becomes a workflow, an event a step of it,
// its resource an employee and its group a team. Every record carries an external id made of the source
// and its place in the log, which the server takes once: an import can be stopped and repeated.
package importer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sametick/sametick/services/tick/internal/client"
	"github.com/sametick/sametick/services/tick/internal/xes"
)

// ReasonExists is the server's reason when an external id is taken; metadata has the record's id.
const ReasonExists = "EXTERNAL_ID_EXISTS"

// Creator makes records; *client.Client does.
type Creator interface {
	Create(ctx context.Context, r client.NewRecord) (client.Record, error)
}

// Counts of an import. Existed are records that an earlier run had made.
type Counts struct{ Workflows, Steps, Employees, Teams, Existed atomic.Int64 }

// Importer imports one log. Its fields are set before Run; Counts may be read at any time.
type Importer struct {
	To Creator
	// Source names the log in external ids.
	Source string
	// Parallel is how many traces are written at once; the steps of one are written in order.
	Parallel int
	Counts   Counts

	reached atomic.Bool // the server has answered once

	mu    sync.Mutex
	named map[string]*named // employees and teams, by type and name
}

// named is a record that many steps refer to, made by the first of them.
type named struct {
	once sync.Once
	id   int64
	err  error
}

// Run reads the log to its end. The error of a broken file comes after what precedes it is in.
func (im *Importer) Run(ctx context.Context, log io.Reader) error {
	im.named = map[string]*named{}
	seen := map[uint64]bool{}
	seed := maphash.MakeSeed()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, im.Parallel))
	var broken error
	n := 0
	for trace, err := range xes.Read(log) {
		if err != nil {
			broken = err
			break
		}
		n++
		// "#" doubled in names, so that what is added to a name that the log has twice is in none.
		id := strings.ReplaceAll(trace.Attributes.String(xes.Name), "#", "##")
		if h := maphash.String(seed, id); id == "" || seen[h] {
			id = fmt.Sprintf("%s#%d", id, n)
		} else {
			seen[h] = true
		}
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return im.trace(ctx, im.Source+"/"+id, trace) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return broken
}

func (im *Importer) trace(ctx context.Context, external string, t xes.Trace) error {
	attributes := t.Attributes.Map()
	attributes["external_id"] = externalID(external)
	workflow, err := im.create(ctx, client.NewRecord{Type: "workflow", Name: title(t.Attributes), Attributes: attributes})
	if err != nil {
		return fmt.Errorf("workflow %s: %w", external, err)
	}
	im.Counts.Workflows.Add(1)
	for i, e := range t.Events {
		if err := im.step(ctx, external+"/"+strconv.Itoa(i+1), workflow, e); err != nil {
			return err
		}
	}
	return nil
}

func (im *Importer) step(ctx context.Context, external string, workflow int64, e xes.Event) error {
	attributes := maps.Clone(e.Attributes.Map())
	attributes["external_id"] = externalID(external)
	for _, ref := range []struct {
		key, kind, field string
		count            *atomic.Int64
	}{
		{xes.Resource, "employee", "employee_id", &im.Counts.Employees},
		{xes.Group, "team", "team_id", &im.Counts.Teams},
	} {
		name := e.Attributes.String(ref.key)
		if strings.TrimSpace(name) == "" {
			continue
		}
		id, err := im.reference(ctx, ref.kind, name, ref.count)
		if err != nil {
			return fmt.Errorf("%s %s: %w", ref.kind, name, err)
		}
		attributes[ref.field] = id
	}
	if _, err := im.create(ctx, client.NewRecord{Type: "step", Name: title(e.Attributes), Attributes: attributes, WorkflowID: workflow}); err != nil {
		return fmt.Errorf("step %s: %w", external, err)
	}
	im.Counts.Steps.Add(1)
	return nil
}

// reference gives the id of the employee or team by that name, made on first sight.
func (im *Importer) reference(ctx context.Context, kind, name string, count *atomic.Int64) (int64, error) {
	im.mu.Lock()
	n := im.named[kind+"/"+name]
	if n == nil {
		n = &named{}
		im.named[kind+"/"+name] = n
	}
	im.mu.Unlock()
	n.once.Do(func() {
		n.id, n.err = im.create(ctx, client.NewRecord{Type: kind, Name: clip(name),
			Attributes: map[string]any{"external_id": externalID(im.Source + "/" + name)}})
		if n.err == nil {
			count.Add(1)
		}
	})
	return n.id, n.err
}

// create makes a record, or finds the one that an earlier run made. It waits out a server that is
// away or overloaded, once it has answered at all: repeating is safe, because the external id is taken once.
func (im *Importer) create(ctx context.Context, r client.NewRecord) (int64, error) {
	wait := 100 * time.Millisecond
	for {
		made, err := im.To.Create(ctx, r)
		var answer *client.Error
		isAnswer := errors.As(err, &answer)
		if err == nil || isAnswer {
			im.reached.Store(true)
		}
		if err == nil {
			return made.ID, nil
		}
		if isAnswer && answer.Reason == ReasonExists {
			im.Counts.Existed.Add(1)
			return strconv.ParseInt(answer.Metadata["id"], 10, 64)
		}
		final := isAnswer && answer.Status != 429 && answer.Status < 500 || !im.reached.Load()
		if final || wait > 10*time.Second || ctx.Err() != nil {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(wait):
			wait *= 2
		}
	}
}

// Limits of the server, in characters.
const (
	maxName       = 500
	maxExternalID = 255
)

// title is a record's name; the whole text is in the attributes.
func title(a xes.Attributes) string {
	if name := a.String(xes.Name); strings.TrimSpace(name) != "" {
		return clip(name)
	}
	return "unnamed"
}

func clip(name string) string {
	if runes := []rune(name); len(runes) > maxName {
		return string(runes[:maxName-1]) + "…"
	}
	return name
}

// externalID is the text itself or, when that is too long for the server, its beginning and its hash.
func externalID(text string) string {
	runes := []rune(text)
	if len(runes) <= maxExternalID {
		return text
	}
	hash := sha256.Sum256([]byte(text))
	return string(runes[:maxExternalID-65]) + "~" + hex.EncodeToString(hash[:])
}
