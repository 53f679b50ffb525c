package auditlog_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/pkg/auditlog"
)

func text(s string) *string { return &s }

// TestLeafIsAsDocumented: the bytes are a contract with whoever recomputes them; a change is another form.
func TestLeafIsAsDocumented(t *testing.T) {
	actor := int64(7)
	e := auditlog.Entry{ID: 12, OrgID: 1, ActorID: &actor, Action: "update", Outcome: "applied", AggregateType: "task", AggregateID: 234,
		EventIDs: json.RawMessage(`[23, 24]`), Changes: json.RawMessage(`{"b": {"before": 1.0, "after": 12345678901234567890}, "a": {"after": "<é\u0001>"}}`),
		RequestID: text("r1"), IP: nil, UserAgent: text(""), OccurredAt: "2026-04-12T14:30:00.000Z"}
	want := "sametick audit entry v1\nMDEyMzQ1Njc4OWFiY2RlZg==\n" +
		`{"action":"update","actor_id":7,"aggregate_id":234,"aggregate_type":"task","changes":{"a":{"after":"<é\u0001>"},"b":{"after":12345678901234567890,"before":1.0}},` +
		`"event_ids":[23,24],"id":12,"ip":null,"occurred_at":"2026-04-12T14:30:00.000Z","org_id":1,"outcome":"applied","request_id":"r1","user_agent":""}` + "\n"
	require.Equal(t, want, string(auditlog.Leaf([]byte("0123456789abcdef"), e)))

	var again auditlog.Entry // from the API's JSON, however it is laid out
	b, err := json.MarshalIndent(e, "", "\t")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &again))
	require.Equal(t, want, string(auditlog.Leaf([]byte("0123456789abcdef"), again)))

	deep := e
	deep.Changes = json.RawMessage(`{"a":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`)
	other := deep
	other.Changes = json.RawMessage(`{"b":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`)
	require.NotEqual(t, auditlog.LeafHash(nil, deep), auditlog.LeafHash(nil, other), "what no JSON reader takes is sealed all the same")
}

func TestTimeShowsWhatIsLessThanAMillisecond(t *testing.T) {
	at := time.Date(2026, 4, 12, 16, 30, 0, 0, time.FixedZone("", 7200))
	require.Equal(t, "2026-04-12T14:30:00.000Z", auditlog.FormatTime(at))
	require.Equal(t, "2026-04-12T14:30:00.000001000Z", auditlog.FormatTime(at.Add(time.Microsecond)))
}

// TestRootsAreThoseOfRFC6962 compares with the reference roots of Certificate Transparency's own tests.
func TestRootsAreThoseOfRFC6962(t *testing.T) {
	roots := map[int64]string{
		0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	tree, err := auditlog.NewTree(0, nil)
	require.NoError(t, err)
	for _, leaf := range []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f", ""} {
		root, err := tree.Root()
		require.NoError(t, err)
		if want := roots[tree.Size()]; want != "" {
			require.Equal(t, want, hex.EncodeToString(root[:]))
		}
		data, err := hex.DecodeString(leaf)
		require.NoError(t, err)
		_, err = tree.Add(tlog.RecordHash(data))
		require.NoError(t, err)
	}
}

// stored keeps hashes as the database does: with the leaf that completes them.
type stored [][]tlog.Hash

func (s stored) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		leaf, nth := auditlog.Place(index)
		if leaf >= int64(len(s)) || nth >= len(s[leaf]) {
			return nil, fmt.Errorf("no hash %d of leaf %d", nth, leaf)
		}
		out[i] = s[leaf][nth]
	}
	return out, nil
}

// TestAnyTree grown in any steps, each from what is stored, has the roots of one that is grown at once, and every
// proof out of it holds, and not for another leaf or root.
func TestAnyTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			hashes stored
			roots  = []tlog.Hash{{}}
			leaves []tlog.Hash
		)
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			tree, err := auditlog.NewTree(int64(len(hashes)), hashes)
			require.NoError(t, err)
			for range rapid.IntRange(1, 40).Draw(t, "leaves") {
				leaf := tlog.RecordHash(fmt.Append(nil, len(leaves)))
				add, err := tree.Add(leaf)
				require.NoError(t, err)
				hashes, leaves = append(hashes, add), append(leaves, leaf)
				root, err := tree.Root()
				require.NoError(t, err)
				roots = append(roots, root)
			}
		}
		size := int64(len(leaves))
		whole, err := tlog.TreeHash(size, hashes)
		require.NoError(t, err)
		require.Equal(t, roots[size], whole)
		n := rapid.Int64Range(0, size-1).Draw(t, "leaf")
		path, err := tlog.ProveRecord(size, n, hashes)
		require.NoError(t, err)
		require.NoError(t, tlog.CheckRecord(path, size, whole, n, leaves[n]))
		if other := (n + 1) % size; other != n {
			require.Error(t, tlog.CheckRecord(path, size, whole, n, leaves[other]))
			require.Error(t, tlog.CheckRecord(path, size, whole, other, leaves[n]))
		}
		from := rapid.Int64Range(1, size).Draw(t, "from")
		between, err := tlog.ProveTree(size, from, hashes)
		require.NoError(t, err)
		texts := make([]string, len(between))
		for i, h := range between {
			texts[i] = h.String()
		}
		older, newer := auditlog.Head{Size: from, Root: roots[from]}, auditlog.Head{Size: size, Root: whole}
		require.NoError(t, auditlog.CheckConsistency(older, newer, texts))
		older.Root[rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1
		require.Error(t, auditlog.CheckConsistency(older, newer, texts))
	})
}

func keys(t testing.TB, name string) (*auditlog.Signer, *auditlog.Verifier, string) {
	private, public, err := auditlog.GenerateKey(name)
	require.NoError(t, err)
	s, err := auditlog.ParseSigner(private)
	require.NoError(t, err)
	require.Equal(t, public, s.PublicKey())
	v, err := auditlog.NewVerifier(public)
	require.NoError(t, err)
	return s, v, private
}

// TestHeadIsAsDocumented: the bytes that are signed, and those of the cursor that they bind.
func TestHeadIsAsDocumented(t *testing.T) {
	s, _, _ := keys(t, "audit.test")
	cursor := sha256.Sum256([]byte("4\n10:12:10\n\n0\n30\n13\n77\n"))
	require.Equal(t, tlog.Hash(cursor), auditlog.Cursor(4, "10:12:10", "", 0, 30, "13", 77))
	signed, err := s.Sign(auditlog.Head{Size: 30, Root: tlog.RecordHash(nil), SealedAt: time.Date(2026, 4, 12, 16, 30, 0, 5, time.FixedZone("", 7200)), Cursor: cursor})
	require.NoError(t, err)
	text, _, _ := strings.Cut(signed, "\n\n")
	require.Equal(t, "audit.test\n30\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\ntime 2026-04-12T14:30:00Z\ncursor "+base64.StdEncoding.EncodeToString(cursor[:]), text)
}

// TestHeads: what is signed comes back, no changed byte does, and a log's head is none of another log.
func TestHeads(t *testing.T) {
	s, v, private := keys(t, "audit.example.com/one")
	h := auditlog.Head{Origin: "audit.example.com/one", Size: 12, Root: tlog.RecordHash(nil), SealedAt: time.Date(2026, 4, 12, 14, 30, 0, 0, time.UTC), Cursor: tlog.RecordHash([]byte("c"))}
	signed, err := s.Sign(h)
	require.NoError(t, err)
	got, err := v.Open(signed)
	require.NoError(t, err)
	require.Equal(t, h, got)
	for i := range len(signed) {
		changed := []byte(signed)
		changed[i] ^= 1
		if got, err := v.Open(string(changed)); err == nil {
			require.Equal(t, h, got, "byte %d", i) // of the base64 of the signature, a bit that does not count
		}
	}
	_, other, _ := keys(t, "audit.example.com/one")
	_, err = other.Open(signed)
	require.Error(t, err, "the name is not the key")

	for _, bad := range []string{"", "x", private[:len(private)-5], strings.Replace(private, "PRIVATE+KEY", "PUBLIC+KEY", 1)} {
		_, err := auditlog.ParseSigner(bad)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "audit.example.com/one+", "no part of the key")
	}
	for _, bad := range []string{"", ",", "x", private} {
		_, err := auditlog.NewVerifier(bad)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "audit.example.com/one+")
	}
	_, _, err = auditlog.GenerateKey("a name")
	require.Error(t, err)
}

// FuzzBundle: whatever a file holds, it is refused without a panic unless it is the sealed entry.
func FuzzBundle(f *testing.F) {
	s, v, _ := keys(f, "audit.test")
	tree, err := auditlog.NewTree(0, nil)
	require.NoError(f, err)
	e := auditlog.Entry{ID: 1, OrgID: 1, Action: "create", EventIDs: json.RawMessage(`[1]`), OccurredAt: "2026-04-12T14:30:00.000Z"}
	_, err = tree.Add(auditlog.LeafHash(make([]byte, auditlog.SaltSize), e))
	require.NoError(f, err)
	root, err := tree.Root()
	require.NoError(f, err)
	signed, err := s.Sign(auditlog.Head{Size: 1, Root: root})
	require.NoError(f, err)
	good, err := json.Marshal(auditlog.Bundle{Entry: e, Proof: auditlog.Inclusion{EntryID: 1, Salt: "AAAAAAAAAAAAAAAAAAAAAA==", Hashes: []string{}, Head: signed}})
	require.NoError(f, err)
	for _, seed := range []string{string(good), `{}`, `{"entry":{},"proof":{"head":"x\n1\n"}}`, `[`, `{"proof":{"leaf":-1,"hashes":["AA=="]}}`} {
		f.Add([]byte(seed))
	}
	want := auditlog.LeafHash(make([]byte, auditlog.SaltSize), e)
	f.Fuzz(func(t *testing.T, b []byte) {
		bundle, err := auditlog.ParseBundle(b)
		if err != nil {
			return
		}
		if _, err := bundle.Verify(v); err == nil {
			require.Equal(t, want, auditlog.LeafHash(make([]byte, auditlog.SaltSize), bundle.Entry))
		}
	})
}
