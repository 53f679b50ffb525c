package rest

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	eventsv1 "github.com/sametick/sametick/proto/gen/go/sametick/events/v1"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
)

func optional[T any](t *rapid.T, g *rapid.Generator[T], label string) *T {
	if !rapid.Bool().Draw(t, label+" set") {
		return nil
	}
	v := g.Draw(t, label)
	return &v
}

func milliseconds(t *rapid.T, label string) *timestamppb.Timestamp {
	ms := rapid.Int64Range(-62135596800000, 253402300799999).Draw(t, label) // the years 1 to 9999
	return timestamppb.New(time.UnixMilli(ms))
}

// clean gives texts without NUL, which the way in refuses.
func clean() *rapid.Generator[string] {
	return rapid.StringOf(rapid.Rune().Filter(func(r rune) bool { return r != 0 }))
}

// anyJSON gives JSON texts whose numbers no float64 holds.
func anyJSON(t *rapid.T) string {
	number := rapid.StringMatching(`-?[1-9][0-9]{0,40}(\.[0-9]{1,20})?`).Draw(t, "number")
	text, err := json.Marshal(clean().Draw(t, "text"))
	require.NoError(t, err)
	return `{"n":` + number + `,"s":` + string(text) + `,"a":[null,true,` + number + `]}`
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Int64()
		in := &recordsv1.Record{Id: id.Draw(t, "id"), Type: rapid.SampledFrom(event.Types()).Draw(t, "type"), Name: clean().Draw(t, "name"),
			Attributes: &wirev1.Json{Text: anyJSON(t)}, Version: id.Draw(t, "version"), WorkflowId: optional(t, id, "workflow"), StepId: optional(t, id, "step"),
			CreatedAt: milliseconds(t, "created"), UpdatedAt: milliseconds(t, "updated")}
		if rapid.Bool().Draw(t, "archived") {
			in.ArchivedAt = milliseconds(t, "archived at")
		}
		text, err := codec{}.Marshal(in)
		require.NoError(t, err)
		require.True(t, json.Valid(text), string(text))
		require.Contains(t, string(text), `"attributes":`+in.GetAttributes().GetText()+`,`, "byte for byte")
		require.NotContains(t, string(text), "\n")
		out := &recordsv1.Record{}
		require.NoError(t, codec{}.Unmarshal(text, out), string(text))
		require.True(t, proto.Equal(in, out), "%s → %v", text, out)
	})
}

// TestEventIsTheSpecifications compares with the one encoding of events that Redis and SSE carry.
func TestEventIsTheSpecifications(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := event.Event{ID: rapid.Int64Min(1).Draw(t, "id"), OrgID: rapid.Int64Min(1).Draw(t, "org"), AggregateType: "task",
			AggregateID: rapid.Int64Min(1).Draw(t, "aggregate"), EventType: "task.post_create", Payload: json.RawMessage(anyJSON(t)),
			OccurredAt: milliseconds(t, "at").AsTime()}
		text, err := codec{}.Marshal(&eventsv1.Event{Id: e.ID, OrgId: e.OrgID, AggregateType: e.AggregateType, AggregateId: e.AggregateID,
			EventType: e.EventType, Payload: &wirev1.Json{Text: string(e.Payload)}, OccurredAt: timestamppb.New(e.OccurredAt)})
		require.NoError(t, err)
		require.Equal(t, string(e.AppendJSON(nil)), string(text))
	})
}

func TestForms(t *testing.T) {
	for want, m := range map[string]proto.Message{
		`{"data":[],"total":0,"next_cursor":null}`: &eventsv1.ListEventsResponse{},
		`{"id":0,"type":"","name":"","attributes":null,"version":0,"workflow_id":null,"step_id":null,"created_at":null,"updated_at":null,"archived_at":null}`: &recordsv1.Record{},
		`{"id":1,"name":"n","prefix":"","scopes":["a","b"],"created_at":"1970-01-01T00:00:00.000Z","expires_at":null,"archived_at":null,"last_used_at":null}`: &identityv1.ApiKey{Id: 1, Name: "n", Scopes: []string{"a", "b"}, CreatedAt: &timestamppb.Timestamp{}},
		`{}`: &identityv1.LogoutResponse{},
	} {
		text, err := codec{}.Marshal(m)
		require.NoError(t, err)
		require.Equal(t, want, string(text))
	}
}

// TestMask: a PATCH names what it changes by its keys; null clears.
func TestMask(t *testing.T) {
	m := &recordsv1.UpdateRecordRequest{}
	require.NoError(t, codec{}.Unmarshal([]byte(`{"version":3,"attributes":null,"workflow_id":7}`), m))
	require.Equal(t, []string{"attributes", "workflow_id"}, m.GetUpdateMask().GetPaths())
	require.Nil(t, m.Attributes)
	require.Equal(t, int64(3), m.GetVersion())
	require.NoError(t, codec{}.Unmarshal([]byte(`{}`), m))
	require.NotNil(t, m.UpdateMask, "a body without keys changes nothing, it does not change what is set")
	require.Empty(t, m.GetUpdateMask().GetPaths())
}

// TestRoutesAreTheProtos compares the table of forms with the routes that the gateway is generated from.
func TestRoutesAreTheProtos(t *testing.T) {
	text, err := os.ReadFile("../../../../proto/http.yaml")
	require.NoError(t, err)
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^ +(?:- )?(get|post|patch|delete|put): (\S+)`).FindAllStringSubmatch(string(text), -1) {
		want = append(want, strings.ToUpper(m[1])+" "+m[2])
	}
	var got []string
	for route := range routes() {
		got = append(got, route)
	}
	require.ElementsMatch(t, want, got)
}

func TestClientIP(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct{ peer, forwarded, want string }{
		{"1.2.3.4:5", "6.6.6.6", "1.2.3.4"},
		{"10.0.0.1:5", "6.6.6.6", "6.6.6.6"},
		{"10.0.0.1:5", "6.6.6.6, 7.7.7.7, 10.0.0.2", "7.7.7.7"},
		{"10.0.0.1:5", "nonsense", "10.0.0.1"},
		{"10.0.0.1:5", "", "10.0.0.1"},
		{"[fd00::1]:5", "2001:db8::1", "2001:db8::1"},
		{"[::ffff:1.2.3.4]:5", "", "1.2.3.4"},
		{"[fe80::1%eth0]:5", "", "fe80::1"},
		{"pipe", "", ""},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RemoteAddr = c.peer
		r.Header.Set("X-Forwarded-For", c.forwarded)
		require.Equal(t, c.want, clientIP(r, proxies), "%+v", c)
	}
}

// FuzzDecode: whatever a stranger sends is a message or a fault of the client's, and what is taken
// holds text that Postgres can keep.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{"name":"x","attributes":{"a":[1e9,"\ud83d\ude00"]},"workflow_id":7}`, `{"name":"\ud800"}`, `{"a":1,"a":2}`, "\xff", `{} {}`, `{"name":"\u0000"}`, ``, `[[[[`, `{"step_id":1e2}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m := &recordsv1.CreateRecordRequest{}
		err := decodeBody(text, m, map[string]string{"type": "task"})
		if err != nil {
			var fault *errs.Error
			if !errors.As(err, &fault) || fault.Kind != errs.Invalid {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if !json.Valid(text) || strings.ContainsRune(m.GetName(), 0) || strings.Contains(m.GetName(), "\xff") {
			t.Fatalf("%q was taken as %v", text, m)
		}
		if a := m.GetAttributes(); a != nil && !json.Valid([]byte(a.GetText())) {
			t.Fatalf("%q gave attributes %q", text, a.GetText())
		}
		var want struct {
			Name       string
			Attributes json.RawMessage
		}
		if err := json.Unmarshal(text, &want); err != nil || want.Name != m.GetName() || string(want.Attributes) != m.GetAttributes().GetText() && string(want.Attributes) != "null" {
			t.Fatalf("%q: encoding/json reads %+v (%v), this %v", text, want, err, m)
		}
	})
}

// A call whose path says it all needs no body; one that has something to say in it does.
func TestEmptyBody(t *testing.T) {
	path := map[string]string{"id": "7"}
	require.NoError(t, decodeBody(nil, &webhooksv1.EnableEndpointRequest{}, path))
	require.NoError(t, decodeBody([]byte(`{}`), &webhooksv1.EnableEndpointRequest{}, path))
	require.ErrorContains(t, decodeBody([]byte(` `), &webhooksv1.EnableEndpointRequest{}, path), "EMPTY_BODY")
	require.ErrorContains(t, decodeBody(nil, &webhooksv1.RotateSecretRequest{}, path), "EMPTY_BODY")
	require.ErrorContains(t, decodeBody(nil, &recordsv1.CreateRecordRequest{}, map[string]string{"type": "task"}), "EMPTY_BODY")
}
