package review

import (
	"context"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// Exporter is a records.Exporter that asks the hooks before an export begins. Safe for concurrent use.
type Exporter struct {
	records.Exporter
	writer *Writer
}

// NewExporter makes one before another, by the hooks of a writer.
func NewExporter(e records.Exporter, w *Writer) *Exporter { return &Exporter{e, w} }

// BeginExport implements records.Exporter.
func (e *Exporter) BeginExport(ctx context.Context, call records.Call, typ event.Type) (int64, error) {
	return rounds(ctx, e.writer, call, func(set *Set, call records.Call) (int64, error) {
		c := &records.Change{Operation: event.Export, Next: records.Record{Type: typ, Name: "export of " + typ}}
		p := Proposal{EventType: event.TypeOf(typ, event.Pre(event.Export)), Type: typ, Name: c.Next.Name}
		if err := e.writer.review(ctx, call, set, []Proposal{p}, []*records.Change{c}); err != nil {
			return 0, err
		}
		call.Reviews = c.Reviews
		return e.Exporter.BeginExport(ctx, call, typ)
	})
}
