package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// few is how many records an export has that the large one is compared with.
	few = 50_000
	// moreMemory is how many bytes the large one may take more, over the garbage that Go lets lie.
	moreMemory = 16 << 20
)

// insertRecords gives organisation 1 records of a type, of about 450 bytes as JSON.
const insertRecords = `
INSERT INTO sametick.records (org_id, type, id, name, attributes)
SELECT 1, $1, $2 + i, 'Quarterly review "' || i || '", to be done',
       jsonb_build_object('priority', 'high', 'estimate_hours', i % 40, 'tags', jsonb_build_array('review', 'finance'),
         'external_id', 'x-' || i, 'description', repeat('Say what was agreed, and with whom. ', 5))
  FROM generate_series(1, $3) i`

// fillRecords makes two types: survey with few records, task with n.
func (b *bench) fillRecords(ctx context.Context, url string, n int) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	b.pool = pool
	_, _ = fmt.Fprintf(b.log, "writing %d and %d records\n", few, n)
	for i, typ := range []string{"survey", "task"} {
		if _, err := pool.Exec(ctx, insertRecords, typ, 1_000_000_000*(i+1), []int{few, n}[i]); err != nil {
			return err
		}
	}
	_, err = pool.Exec(ctx, `VACUUM (ANALYZE) sametick.records`)
	return err
}

// exports runs each format of both types, the small one first: that warms up.
func (b *bench) exports(ctx context.Context) error {
	token, err := b.tokens.For(1)
	if err != nil {
		return err
	}
	for _, format := range []string{"ndjson", "csv"} {
		var small float64
		for i, typ := range []string{"survey", "task"} {
			count := int64([]int{few, b.export}[i])
			memory, err := b.exportOne(ctx, token, typ, format, count)
			if err != nil {
				return fmt.Errorf("%s of %d: %w", format, count, err)
			}
			if i == 0 {
				small = memory
				continue
			}
			b.report.AtMost(fmt.Sprintf("%s of %d takes no more memory than of %d, but for 16 MiB, in MiB", format, count, few), memory, small+moreMemory>>20)
		}
	}
	return b.gateway.Failure()
}

// exportOne exports and checks: the bytes against their hash and number, these against the trailers and the event. It gives
// the most memory that api-gateway had, in MiB.
func (b *bench) exportOne(ctx context.Context, token, typ, format string, count int64) (memory float64, err error) {
	if err := b.gateway.ForgetPeak(); err != nil {
		return 0, err
	}
	before, err := b.gateway.CPU()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	got, err := b.download(ctx, token, typ, format)
	if err != nil {
		return 0, err
	}
	took := time.Since(began).Seconds()
	if got.lines != count {
		return 0, fmt.Errorf("%d records came", got.lines)
	}
	if err := b.checkEvent(ctx, typ, got); err != nil {
		return 0, err
	}
	most, err := b.gateway.PeakMemory()
	if err != nil {
		return 0, err
	}
	after, err := b.gateway.CPU()
	if err != nil {
		return 0, err
	}
	memory = float64(most) / (1 << 20)
	leg := fmt.Sprintf("export of %d records as %s", count, format)
	for _, v := range []struct {
		name, unit string
		value      float64
	}{{"time", "s", took}, {"bytes", "MB", float64(got.bytes) / 1e6}, {"rate", "records/s", float64(count) / took},
		{"processor time of api-gateway", "s", (after - before).Seconds()}, {"most resident memory of api-gateway", "MiB", memory}} {
		b.report.Add(leg, v.name, v.unit, v.value)
	}
	_, _ = fmt.Fprintf(b.log, "  %s: %.1f s, %d bytes, %.0f MiB at most, sha256 %s\n", leg, took, got.bytes, memory, got.sha256)
	return memory, nil
}

// download is what came, as the client counts it.
type download struct {
	bytes, lines int64
	sha256       string
}

func (b *bench) download(ctx context.Context, token, typ, format string) (d download, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+b.gateway.HTTP+"/api/records/"+typ+":export", strings.NewReader(`{"format":"`+format+`"}`))
	if err != nil {
		return d, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return d, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // for the error
		return d, fmt.Errorf("%s: %s", res.Status, text)
	}
	hash := sha256.New()
	in := bufio.NewReaderSize(res.Body, 1<<20)
	for buf := make([]byte, 1<<20); ; {
		n, err := in.Read(buf)
		_, _ = hash.Write(buf[:n]) // never fails
		d.bytes += int64(n)
		d.lines += int64(bytes.Count(buf[:n], []byte("\n"))) // no record here has one of its own
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return d, err
		}
	}
	if format == "csv" {
		d.lines-- // the head
	}
	d.sha256 = hex.EncodeToString(hash.Sum(nil))
	if told := res.Trailer.Get("Sametick-Count") + " " + res.Trailer.Get("Sametick-Sha256"); told != strconv.FormatInt(d.lines, 10)+" "+d.sha256 {
		return d, fmt.Errorf("the trailers say %q; %d records came, with the sha256 %s", told, d.lines, d.sha256)
	}
	return d, nil
}

// checkEvent holds the newest post_export of the type against what came.
func (b *bench) checkEvent(ctx context.Context, typ string, d download) error {
	var payload []byte
	if err := b.pool.QueryRow(ctx, `SELECT payload FROM sametick.events WHERE org_id = 1 AND event_type = $1 ORDER BY id DESC LIMIT 1`, typ+".post_export").Scan(&payload); err != nil {
		return fmt.Errorf("find post_export: %w", err)
	}
	var e struct {
		Count  int64
		SHA256 string
	}
	if err := json.Unmarshal(payload, &e); err != nil {
		return err
	}
	if e.Count != d.lines || e.SHA256 != d.sha256 {
		return fmt.Errorf("post_export says %s; %d records came, with the sha256 %s", payload, d.lines, d.sha256)
	}
	return nil
}
