package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sametick/sametick/services/tick/internal/importer"
	"github.com/sametick/sametick/services/tick/internal/xes"
)

func (c *command) importCmd() *cobra.Command {
	var (
		parallel int
		source   string
	)
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Bring an XES event log in (IEEE 1849, plain or gzipped)",
		Long: `Bring an XES event log in (IEEE 1849, plain or gzipped): a trace becomes a
workflow, an event a step of it with its employee and team; all attributes are
kept. Stop and repeat it at will: what is in is not brought in again.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			if source == "" {
				source = sourceOf(args[0])
			}
			return c.runImport(cmd.Context(), args[0], &importer.Importer{To: api, Source: source, Parallel: parallel})
		},
	}
	cmd.Flags().IntVar(&parallel, "parallel", 16, "traces written at once")
	cmd.Flags().StringVar(&source, "source", "", "name of the log in external ids (default: the file's name)")
	return cmd
}

// sourceOf is the file's name without its endings.
func sourceOf(file string) string {
	return strings.TrimSuffix(strings.TrimSuffix(filepath.Base(file), ".gz"), ".xes")
}

func (c *command) runImport(ctx context.Context, name string, im *importer.Importer) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	started := time.Now()
	done := c.progress(ctx, im, info.Size())
	err = im.Run(ctx, done.watch(f))
	done.stop()
	n := &im.Counts
	took := time.Since(started).Seconds()
	_, _ = fmt.Fprintf(c.stderr, "%d workflows, %d steps, %d employees, %d teams in %.1f s (%.0f steps/s); %d records were there before\n",
		n.Workflows.Load(), n.Steps.Load(), n.Employees.Load(), n.Teams.Load(), took, float64(n.Steps.Load())/took, n.Existed.Load())
	if err != nil && !errors.Is(err, context.Canceled) {
		if where := (*xes.Error)(nil); errors.As(err, &where) {
			return fmt.Errorf("%s:%w", name, err) // name:line:column, which editors can follow
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	if ctx.Err() != nil {
		_, _ = fmt.Fprintln(c.stderr, "stopped; run the same command to go on")
		return context.Canceled
	}
	return nil
}

// progress shows how far an import is: by bytes of the file, since a log does not say how long it is.
type progress struct {
	bar  *progressbar.ProgressBar
	stop func()
}

func (p progress) watch(f io.Reader) io.Reader {
	if p.bar == nil {
		return f
	}
	r := progressbar.NewReader(f, p.bar)
	return &r
}

// progress draws a bar on a terminal and writes a line each 5 seconds elsewhere.
func (c *command) progress(ctx context.Context, im *importer.Importer, size int64) progress {
	every := 5 * time.Second
	var bar *progressbar.ProgressBar
	if out, ok := c.stderr.(*os.File); ok && term.IsTerminal(int(out.Fd())) {
		every = 200 * time.Millisecond
		bar = progressbar.NewOptions64(size, progressbar.OptionSetWriter(out), progressbar.OptionSetPredictTime(true),
			progressbar.OptionShowBytes(false), progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish())
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	started := time.Now()
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				steps := im.Counts.Steps.Load()
				text := fmt.Sprintf("%d steps, %.0f/s", steps, float64(steps)/time.Since(started).Seconds())
				if bar != nil {
					bar.Describe(text)
				} else {
					_, _ = fmt.Fprintln(c.stderr, text)
				}
			}
		}
	}()
	return progress{bar: bar, stop: func() {
		cancel()
		<-ended
		if bar != nil {
			_ = bar.Finish()
		}
	}}
}
