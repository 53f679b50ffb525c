package rig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sametick/sametick/deploy/bench/internal/report"
)

// Facts describes the machine and the versions, and measures what the disk and the loopback cost: a
// reader needs them to compare figures with another machine's.
func (r *Rig) Facts(ctx context.Context) ([]report.Fact, error) {
	sync, err := fsyncMicros(r.dir)
	if err != nil {
		return nil, err
	}
	var pgVersion, settings string
	err = r.admin.QueryRow(ctx, `SELECT current_setting('server_version'),
		(SELECT string_agg(name || '=' || current_setting(name), ' ' ORDER BY name) FROM pg_settings WHERE name = ANY($1))`,
		[]string{"fsync", "synchronous_commit", "shared_buffers", "max_wal_size", "autovacuum", "wal_level"}).Scan(&pgVersion, &settings)
	if err != nil {
		return nil, fmt.Errorf("ask Postgres for its version: %w", err)
	}
	pgTrip, err := medianMicros(1000, func() error { _, err := r.admin.Exec(ctx, "SELECT 1"); return err })
	if err != nil {
		return nil, fmt.Errorf("time a round trip to Postgres: %w", err)
	}
	redisTrip, err := medianMicros(1000, func() error { return r.Redis.Do(ctx, r.Redis.B().Ping().Build()).Error() })
	if err != nil {
		return nil, fmt.Errorf("time a round trip to Redis: %w", err)
	}
	info, err := r.Redis.Do(ctx, r.Redis.B().Info().Section("server").Build()).ToString()
	if err != nil {
		return nil, fmt.Errorf("ask Redis for its version: %w", err)
	}
	return append([]report.Fact{
		{Name: "machine", Value: fmt.Sprintf("%s, %d cores, %s", after("/proc/cpuinfo", "model name"), runtime.NumCPU(), memory())},
		{Name: "kernel", Value: strings.TrimSpace(read("/proc/sys/kernel/osrelease")) + " " + runtime.GOARCH},
		{Name: "load before", Value: Load()},
		{Name: "postgres", Value: "Postgres " + pgVersion},
		{Name: "settings", Value: settings},
		{Name: "redis", Value: "Redis " + field(info, "redis_version:")},
		{Name: "8 KiB write + fdatasync", Value: fmt.Sprintf("%.0f µs (median)", sync)},
		{Name: "round trip", Value: fmt.Sprintf("Postgres %.0f µs, Redis %.0f µs (medians)", pgTrip, redisTrip)},
		{Name: "go", Value: runtime.Version()},
	}, libraries()...), nil
}

// libraries lists the versions that the figures depend on.
func libraries() []report.Fact {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	wanted := []string{
		"github.com/jackc/pgx/v5", "github.com/redis/rueidis", "google.golang.org/grpc",
		"github.com/ThreeDotsLabs/watermill-sql/v4", "github.com/riverqueue/river",
	}
	var found []string
	for _, m := range build.Deps {
		if slices.Contains(wanted, m.Path) {
			found = append(found, m.Path+" "+m.Version)
		}
	}
	return []report.Fact{{Name: "libraries", Value: strings.Join(found, ", ")}}
}

// fsyncMicros is pg_test_fsync's figure for fdatasync: 8 KiB written over the same place and synced,
// on the disk of the data directory; the median in microseconds.
func fsyncMicros(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "fsync-probe"))
	if err != nil {
		return 0, fmt.Errorf("probe fdatasync: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	defer func() { _ = f.Close() }()
	page := make([]byte, 8192)
	for range 2048 { // 16 MiB, a WAL segment: a file that grows would also sync its size
		if _, err := f.Write(page); err != nil {
			return 0, fmt.Errorf("probe fdatasync: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return 0, fmt.Errorf("probe fdatasync: %w", err)
	}
	micros, err := medianMicros(1000, func() error {
		if _, err := f.WriteAt(page, 0); err != nil {
			return err
		}
		return syscall.Fdatasync(int(f.Fd()))
	})
	if err != nil {
		return 0, fmt.Errorf("probe fdatasync: %w", err)
	}
	return micros, nil
}

func medianMicros(n int, once func() error) (float64, error) {
	times := make([]float64, n)
	for i := range times {
		start := time.Now()
		if err := once(); err != nil {
			return 0, err
		}
		times[i] = float64(time.Since(start)) / float64(time.Microsecond)
	}
	return report.Quantile(times, 0.5), nil
}

// memory is the machine's, in GiB.
func memory() string {
	var kb float64
	if _, err := fmt.Sscan(after("/proc/meminfo", "MemTotal"), &kb); err != nil {
		return "memory unknown"
	}
	return fmt.Sprintf("%.0f GiB", kb/(1<<20))
}

// read gives a file's text, or nothing: a fact that the machine does not tell is left out.
func read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text)
}

// after gives the value of a "key : value" line of a file in /proc.
func after(path, key string) string { return field(read(path), key) }

func field(text, key string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimLeft(strings.TrimSpace(rest), ": \t")
		}
	}
	return "unknown"
}

// Load is the machine's load now (Linux: 1, 5 and 15 minutes, running/all, newest pid).
func Load() string { return strings.TrimSpace(read("/proc/loadavg")) }
