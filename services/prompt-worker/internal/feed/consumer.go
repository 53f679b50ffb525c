package feed

import (
	"log/slog"
	"time"

	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

// Consumer is the name of the cursor and the leases.
const Consumer = "prompts"

// Options of NewConsumer.
type Options struct {
	DB     pg.Beginner
	Source *stream.Source
	// Holder names this replica, differently from every other one alive.
	Holder   string
	LeaseTTL time.Duration
	Log      *slog.Logger
	Trimmed  func(*stream.TrimmedError)
}

// NewConsumer makes the consumer that schedules by a feed and tells an engine what there is to do.
func NewConsumer(f *Feed, e *runs.Engine, o Options) *stream.Consumer {
	f.Scheduled = e.Take
	return &stream.Consumer{
		Name: Consumer, Holder: o.Holder, DB: o.DB, Source: o.Source, LeaseTTL: o.LeaseTTL, Log: o.Log, Trimmed: o.Trimmed,
		Handle: f.Handle, Passes: f.Passes, Committed: f.Committed, Release: e.Release,
		Held: func(shards []int, _ time.Time) { e.Held(shards) },
	}
}
