package app_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sametick/sametick/pkg/auditlog"
	"github.com/sametick/sametick/pkg/auditlog/auditdb"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pgtest"
)

// audited is a database that a sealer of few lines has sealed: the product's own is outbox-relay's.
type audited struct {
	t               *testing.T
	url             string
	pool            *pgxpool.Pool
	private, public string
	seals           int64
	entries         []auditlog.Entry
	hashes          []tlog.Hash // stored, by tlog's index
}

func newAudited(t *testing.T) *audited {
	t.Helper()
	names, err := fs.Glob(outbox.Migrations(), "*.sql")
	require.NoError(t, err)
	var parts [][]byte
	for _, n := range names {
		text, err := fs.ReadFile(outbox.Migrations(), n)
		require.NoError(t, err)
		parts = append(parts, text)
	}
	db := pgtest.Migrated(t, "core "+pgtest.Fingerprint(parts...), func(ctx context.Context, url string) error {
		return outbox.Migrate(ctx, url, slog.New(slog.DiscardHandler))
	})
	a := &audited{t: t, url: db.URL, pool: db.Pool(t)}
	a.private, a.public, err = auditlog.GenerateKey("audit.test")
	require.NoError(t, err)
	return a
}

func (a *audited) exec(sql string, args ...any) {
	a.t.Helper()
	_, err := a.pool.Exec(a.t.Context(), sql, args...)
	require.NoError(a.t, err, sql)
}

func salt(id int64) []byte { return []byte(fmt.Sprintf("%016d", id)) }

// seal writes n entries and a head over all.
func (a *audited) seal(n int) (signed string) {
	a.t.Helper()
	a.exec("SELECT sametick.record_event(1, 'task', i, 'post_update', 7, '<Größe>', '{\"n\":{\"before\":1.0,\"after\":12345678901234567890}}') FROM generate_series(1, $1) i", n)
	rows, err := a.pool.Query(a.t.Context(), "SELECT "+auditdb.Columns+" FROM sametick.audit_entries e WHERE id > $1 ORDER BY id", len(a.entries))
	require.NoError(a.t, err)
	fresh, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (auditlog.Entry, error) { return auditdb.ScanEntry(row) })
	require.NoError(a.t, err)
	for _, e := range fresh {
		stored, err := tlog.StoredHashesForRecordHash(int64(len(a.entries)), auditlog.LeafHash(salt(e.ID), e), a)
		require.NoError(a.t, err)
		a.exec("INSERT INTO sametick.audit_leaves VALUES ($1, $2, $3, $4)", len(a.entries), e.ID, salt(e.ID), auditlog.JoinHashes(stored))
		a.entries, a.hashes = append(a.entries, e), append(a.hashes, stored...)
	}
	size := int64(len(a.entries))
	root, err := tlog.TreeHash(size, a)
	require.NoError(a.t, err)
	signer, err := auditlog.ParseSigner(a.private)
	require.NoError(a.t, err)
	var snapshot, claim string
	require.NoError(a.t, a.pool.QueryRow(a.t.Context(), "SELECT pg_current_snapshot()::text, (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1)::text").Scan(&snapshot, &claim))
	a.seals++
	signed, err = signer.Sign(auditlog.Head{Size: size, Root: root, SealedAt: time.Now(), Cursor: auditlog.Cursor(a.seals, snapshot, "", 0, size, claim, 1)})
	require.NoError(a.t, err)
	a.exec(`INSERT INTO sametick.audit_heads (seal, size, snapshot, page_after, max_id, claim_xid, system_identifier, note)
		VALUES ($5, $1, $2::text::pg_snapshot, 0, $1, $3::text::xid8, 1, $4)`, size, snapshot, claim, signed, a.seals)
	return signed
}

// ReadHashes implements tlog.HashReader.
func (a *audited) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		out[i] = a.hashes[index]
	}
	return out, nil
}

func TestAuditVerifyWholeLog(t *testing.T) {
	a := newAudited(t)
	env := []string{"DATABASE_URL=" + a.url, "AUDIT_PUBLIC_KEYS=" + a.public}
	file := filepath.Join(t.TempDir(), "audit.head")

	code, _, errOut := tick(t.Context(), env, "audit", "verify")
	require.Equal(t, 1, code)
	require.Contains(t, errOut, "nothing is sealed")
	first := a.seal(5)
	code, out, errOut := tick(t.Context(), env, "audit", "verify", "--save-head", file)
	require.Zero(t, code, errOut)
	require.Contains(t, out, "5 entries are as they were sealed")
	require.Contains(t, errOut, "Not compared")
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, first, string(b))

	a.seal(4)
	code, out, errOut = tick(t.Context(), env, "audit", "verify", "--head", file, "--save-head", file)
	require.Zero(t, code, out+errOut)
	require.Empty(t, errOut)
	newest, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NotEqual(t, first, string(newest), "the saved head moves on")

	for _, table := range []string{"audit_entries", "audit_leaves", "audit_heads"} {
		a.exec("ALTER TABLE sametick." + table + " DISABLE TRIGGER append_only")
	}
	a.exec(`UPDATE sametick.audit_entries SET action = E'\x1b[31mforged' WHERE id = 3`)
	code, out, errOut = tick(t.Context(), env, "audit", "verify", "--head", file, "--save-head", file)
	require.Equal(t, 1, code)
	require.Contains(t, out, "CHANGED      entry 3 (leaf 2)")
	require.Contains(t, errOut, "1 found, in 9 leaves")
	a.exec("UPDATE sametick.audit_entries SET action = 'update' WHERE id = 3")

	a.exec("DELETE FROM sametick.audit_entries WHERE id > 5; DELETE FROM sametick.audit_leaves WHERE leaf > 4; DELETE FROM sametick.audit_heads WHERE size > 5")
	code, out, _ = tick(t.Context(), env, "audit", "verify", "--head", file, "--save-head", file)
	require.Equal(t, 1, code)
	require.Contains(t, out, "ROLLED_BACK")
	kept, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, newest, kept, "what is wrong replaces no saved head")
	code, _, errOut = tick(t.Context(), env, "audit", "verify")
	require.Zero(t, code, "the control: without the saved head it looks well: "+errOut)
}

func TestAuditProofOffline(t *testing.T) {
	a := newAudited(t)
	head := a.seal(9)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/audit/4":
			b, err := json.Marshal(a.entries[3])
			require.NoError(t, err)
			_, _ = w.Write(b)
		case "/api/audit/proofs/inclusion/4":
			path, err := tlog.ProveRecord(9, 3, a)
			require.NoError(t, err)
			p := auditlog.Inclusion{EntryID: 4, Leaf: 3, Salt: base64.StdEncoding.EncodeToString(salt(4)), Head: head}
			for _, h := range path {
				p.Hashes = append(p.Hashes, h.String())
			}
			require.NoError(t, json.NewEncoder(w).Encode(p))
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"detail":"there is no such audit entry"}`))
		}
	}))
	t.Cleanup(api.Close)
	code, proof, errOut := tick(t.Context(), []string{"SAMETICK_URL=" + api.URL, "SAMETICK_TOKEN=x"}, "audit", "proof", "4")
	require.Zero(t, code, errOut)
	require.Contains(t, proof, "12345678901234567890", "numbers keep their digits")
	code, _, errOut = tick(t.Context(), []string{"SAMETICK_URL=" + api.URL, "SAMETICK_TOKEN=x"}, "audit", "proof", "5")
	require.Equal(t, 1, code)
	require.Contains(t, errOut, "no such audit entry")
	api.Close() // from here on nobody is asked

	file := filepath.Join(t.TempDir(), "4.proof")
	verify := func(text, keys string) (int, string) {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		code, out, errOut := tick(t.Context(), []string{"DATABASE_URL=postgres://127.0.0.1:1/x"}, "audit", "verify", "--proof", file, "--keys", keys)
		return code, out + errOut
	}
	code, out := verify(proof, a.public)
	require.Zero(t, code, out)
	require.Contains(t, out, "entry 4 (update of task 4")
	require.Contains(t, out, "leaf 3 of 9")

	_, stranger, err := auditlog.GenerateKey("audit.test")
	require.NoError(t, err)
	code, out = verify(proof, stranger)
	require.Equal(t, 1, code)
	require.Contains(t, out, "signature")
	for what, change := range map[string][2]string{
		"a field": {`"actor_id": 7`, `"actor_id": 8`}, "a digit": {"12345678901234567890", "12345678901234567891"}, "a scale": {"1.0", "1.00"},
		"the id": {`"id": 4`, `"id": 5`}, "its leaf": {`"leaf": 3`, `"leaf": 2`}, "beyond": {`"leaf": 3`, `"leaf": 9`}, "before": {`"leaf": 3`, `"leaf": -1`},
		"the salt": {base64.StdEncoding.EncodeToString(salt(4)), base64.StdEncoding.EncodeToString(salt(5))}, "no salt": {`"salt": "`, `"salt": "!`},
		"the head": {`\n9\n`, `\n8\n`}, "no JSON": {"{", "["},
	} {
		require.Contains(t, proof, change[0], what)
		code, out := verify(strings.Replace(proof, change[0], change[1], 1), a.public)
		require.Equal(t, 1, code, "%s: %s", what, out)
	}
}

func TestAuditVerifySaysWhatIsMissing(t *testing.T) {
	_, public, err := auditlog.GenerateKey("audit.test")
	require.NoError(t, err)
	for want, args := range map[string][]string{
		"AUDIT_PUBLIC_KEYS":      {"audit", "verify"},
		"want name+id+base64":    {"audit", "verify", "--keys", "odd"},
		"DATABASE_URL":           {"audit", "verify", "--keys", public},
		"with --save-head alone": {"audit", "verify", "--keys", public, "--head", filepath.Join(t.TempDir(), "none")},
		"[head proof]":           {"audit", "verify", "--proof", "x", "--keys", public, "--head", "y"},
		"no id of an audit":      {"audit", "proof", "x"},
		"connect to the":         {"audit", "verify", "--keys", public, "--head", ""},
	} {
		env := []string(nil)
		if want == "connect to the" {
			env = []string{"DATABASE_URL=postgres://u:secret@127.0.0.1:1/x"}
		}
		code, _, errOut := tick(t.Context(), env, args...)
		require.Equal(t, 1, code, args)
		require.Contains(t, errOut, want)
		require.NotContains(t, errOut, "secret")
	}
}
