package tenancy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
	relayv1 "github.com/sametick/sametick/proto/gen/go/sametick/relay/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/gatewaytest"
)

// fakeRelay seals nothing: it answers as outbox-relay would.
type fakeRelay struct {
	relayv1.UnimplementedAuditLogServiceServer
}

// GetAuditHead implements AuditLogService.
func (fakeRelay) GetAuditHead(context.Context, *relayv1.GetAuditHeadRequest) (*relayv1.GetAuditHeadResponse, error) {
	return &relayv1.GetAuditHeadResponse{Size: 9, Head: "a head\nof two lines\n"}, nil
}

// ProveInclusion implements AuditLogService.
func (fakeRelay) ProveInclusion(_ context.Context, r *relayv1.ProveInclusionRequest) (*relayv1.ProveInclusionResponse, error) {
	return &relayv1.ProveInclusionResponse{Leaf: r.GetEntryId() - 1, Salt: "c2FsdA==", Hashes: []string{"aA==", "aQ=="}, Head: "a head"}, nil
}

// ProveConsistency implements AuditLogService.
func (fakeRelay) ProveConsistency(_ context.Context, r *relayv1.ProveConsistencyRequest) (*relayv1.ProveConsistencyResponse, error) {
	if r.GetFrom() < 1 || r.GetTo() > 9 {
		return nil, errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields").WithField("from", "OUT_OF_RANGE", "from 1 to the size of the head")
	}
	return &relayv1.ProveConsistencyResponse{Hashes: []string{"aA=="}}, nil
}

// relay starts one and gives its address.
func relay(t *testing.T) string {
	t.Helper()
	s := rpc.NewServer(rpc.ServerOptions{Addr: "127.0.0.1:0", Log: telemetry.NewLogger(&gatewaytest.Buffer{}, "relay", nil), Registry: telemetry.NewRegistry(),
		Register: func(r grpc.ServiceRegistrar) { relayv1.RegisterAuditLogServiceServer(r, fakeRelay{}) }})
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		require.NoError(t, s.Stop(ctx))
	})
	return s.Addr()
}

// proofRequests are for the methods that are away in the other tests.
func proofRequests() map[string]func(*side) request {
	return map[string]func(*side) request{
		"AuditService.GetInclusionProof": func(s *side) request {
			return request{"entry_id": s.must("AuditService.ListEntries", request{})["data"].([]any)[0].(request)["id"]}
		},
		"AuditService.GetConsistencyProof": func(*side) request { return request{"from": 2, "to": 9} },
		// Each export leaves an entry, which the next one would have.
		"AuditService.ExportEntries": func(*side) request { return request{"aggregate_type": "task"} },
	}
}

// doors compares what the two doors of the service answer.
type doors struct {
	*world
	found  []string
	faults map[string]int
	calls  int
}

func (d *doors) request(m *method) request {
	if make, ok := proofRequests()[m.name]; ok {
		return make(d.b)
	}
	return baseOf(d.b, m)
}

func (d *doors) say(format string, args ...any) {
	d.found = append(d.found, fmt.Sprintf(format, args...))
}

// TestDoors makes the same call over gRPC and over REST, for every method that has a route, and by each of its routes:
// what succeeds gives the same data, what fails fails alike. A method that is new fails here until
// requests, in known_test.go, has a request for it that succeeds.
func TestDoors(t *testing.T) {
	t.Parallel()
	d := &doors{world: newWorldWith(t, map[string]string{"RELAY_ADDR": relay(t)}), faults: map[string]int{}}
	for _, m := range d.methods {
		for _, by := range m.routes {
			d.succeed(m, by)
			d.once(m, by)
			d.refuse(m, by)
		}
	}
	require.Empty(t, d.found, strings.Join(d.found, "\n"))
	for _, m := range d.methods {
		if len(m.routes) > 0 && d.faults[m.name] == 0 && infallible()[m.name] == "" {
			t.Errorf("%s: nothing that was sent to it failed", m.name)
		}
	}
	t.Logf("%d methods, %d pairs of calls, of which %d failed alike", len(d.methods), d.calls, sum(d.faults))
}

// infallible are the methods that nothing can be wrong with.
func infallible() map[string]string {
	return map[string]string{"IdentityService.ListSigningKeys": "takes nothing, from anyone"}
}

// pair makes a call by both doors.
func (d *doors) pair(m *method, by route, first, second request) (a, b outcome) {
	d.t.Helper()
	d.calls++
	a, err := ofGRPC(d.b.grpc(m, first))
	require.NoError(d.t, err, "%s over gRPC: %v", m.name, first)
	b, err = ofREST(d.b.rest(by)(m, second))
	require.NoError(d.t, err, "%s over REST: %v", m.name, second)
	return a, b
}

// succeed runs the method by both doors: with one request when it only reads, else each with its own, where ids, times
// and secrets are another's.
func (d *doors) succeed(m *method, by route) {
	first := d.request(m)
	second := first
	if !m.reads() {
		second = d.request(m)
	}
	a, b := d.pair(m, by, first, second)
	if a.fault != nil || b.fault != nil {
		d.say("%s %s cannot be exercised: %s and %s; give it a request that succeeds, requests in known_test.go", m.name, by.path, show(a), show(b))
		return
	}
	if !m.reads() {
		a, b = a.alike(), b.alike()
	}
	if text := differs(a, b); text != "" {
		d.say("%s by %s %s: %s", m.name, by.verb, by.path, text)
	}
}

// once sends the same change over REST that gRPC has made, with the same Idempotency-Key: the service takes both for one
// request, so both say the same, and gives both the same answer, to the last digit.
func (d *doors) once(m *method, by route) {
	if m.reads() || m.descriptor.IsStreamingServer() || keyless(m) {
		return
	}
	s := *d.b
	s.once = s.text("once")
	r := d.request(m)
	a, err := ofGRPC(s.grpc(m, r))
	require.NoError(d.t, err)
	said := s.rest(by)(m, r)
	b, err := ofREST(said)
	require.NoError(d.t, err)
	d.calls++
	if text := differs(a, b); text != "" {
		d.say("%s by %s %s, sent again with its key: %s", m.name, by.verb, by.path, text)
	} else if said.answer.Header.Get("Idempotency-Replayed") != "true" {
		d.say("%s by %s %s: REST has done it again", m.name, by.verb, by.path)
	}
}

// keyless are the changes that take no Idempotency-Key, or lock out who sent them.
func keyless(m *method) bool {
	return slices.Contains([]string{"DirectoryService.ArchiveOrganization", "IdentityService.EndSessions",
		"IdentityService.Login", "IdentityService.Refresh", "IdentityService.Logout", "IdentityService.ResetPassword",
		"IdentityService.AcceptInvitation", "IdentityService.ChangePassword", "IdentityService.ExchangeApiKey"}, m.name)
}

// refuse sends what should fail: a bad token, and bad values in each argument in turn.
func (d *doors) refuse(m *method, by route) {
	d.compare(m, by, "a bad token", func() request { return with(d.request(m), request{asKey: "nobody"}) })
	for _, a := range arguments(m.descriptor.Input(), nil) {
		for _, v := range badValues(a, by) {
			d.compare(m, by, fmt.Sprintf("%s = %.60s", a, text(v)), func() request { return a.set(d.request(m), candidate{value: v}) })
		}
	}
}

// compare makes a call by both doors. A change that succeeds is made again with a request of its own, where only what it
// takes away from that one may stand in the way.
func (d *doors) compare(m *method, by route, what string, make func() request) {
	r := make()
	a, err := ofGRPC(d.b.grpc(m, maps.Clone(r)))
	require.NoError(d.t, err, "%s, %s", m.name, what)
	if a.fault == nil && !m.reads() {
		r = make()
	}
	b, err := ofREST(d.b.rest(by)(m, maps.Clone(r)))
	require.NoError(d.t, err, "%s, %s", m.name, what)
	d.calls++
	switch {
	case a.fault != nil:
		d.faults[m.name]++
	case !m.reads() && b.fault != nil && b.fault.Status == http.StatusConflict,
		m.name == "AuditService.ExportEntries" && b.fault == nil: // the second has the entry that the first has left
		return
	case !m.reads():
		a, b = a.alike(), b.alike()
	}
	if text := differs(a, b); text != "" {
		d.say("%s by %s %s, %s: %s", m.name, by.verb, by.path, what, text)
	}
}

// badValues are values that JSON and protobuf can both carry, and that an argument has no use for.
func badValues(a argument, by route) []any {
	name := a.path[len(a.path)-1]
	if strings.HasPrefix(a.String(), "update_mask") || strings.Contains(a.String(), ".update_mask") { // which REST makes itself
		return nil
	}
	switch a.field.Kind() {
	case protoreflect.Int32Kind:
		return []any{-1, 0, 1_000_000}
	case protoreflect.Int64Kind:
		return []any{-1, 0, 987_654_321}
	case protoreflect.StringKind:
		if strings.Contains(by.path, "{"+name+"}") {
			return []any{"no such thing"}
		}
		return []any{"", "no such thing", strings.Repeat("long", 1000)}
	case protoreflect.MessageKind:
		if a.field.Message().FullName() == jsonMessage {
			return []any{request{"external_id": 7, "due_date": "never", "type": 3}, 7}
		}
	}
	return nil
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// TestDoorsNotice is the control: each change of one place of an answer or an error, however small, is noticed; of what was
// masked, each but to another id, time or secret.
func TestDoorsNotice(t *testing.T) {
	t.Parallel()
	d := &doors{world: newWorld(t), faults: map[string]int{}}
	for _, name := range []string{"RecordService.GetRecord", "RecordService.ListRecords", "WorkflowService.GetWorkflow", "EventService.ListEvents", "DirectoryService.GetUser"} {
		m := d.method(name)
		a, b := d.pair(m, m.routes[0], d.request(m), d.request(m))
		require.Empty(t, differs(a, b))
		changed := 0
		for _, other := range tamper(b.data[0]) {
			require.NotEmpty(t, differs(a, outcome{data: []any{other}}), "%s: %s", name, text(other))
			changed++
		}
		require.Greater(t, changed, 8, name)
		for _, other := range tamper(alike("", b.data[0])) {
			require.NotEmpty(t, differs(a.alike(), outcome{data: []any{other}}), "%s, masked: %s", name, text(other))
		}
	}
	m := d.method("RecordService.CreateRecord")
	a, b := d.pair(m, m.routes[0], request{"type": "task", "name": ""}, request{"type": "task", "name": ""})
	require.NotNil(t, a.fault)
	require.Empty(t, differs(a, b))
	for _, change := range []func(*fault){
		func(f *fault) { f.Status = 409 }, func(f *fault) { f.Reason += "X" }, func(f *fault) { f.Message += "." }, func(f *fault) { f.Fields = nil },
		func(f *fault) { f.Fields = slices.Clone(f.Fields); f.Fields[0].Reason = "OTHER" }, func(f *fault) { f.Meta = map[string]string{"a": "b"} }, func(f *fault) { f.Retry = 1 },
	} {
		other := *b.fault
		change(&other)
		require.NotEmpty(t, differs(a, outcome{fault: &other}), text(other))
	}
	require.NotEmpty(t, differs(a, outcome{data: []any{request{}}}))
}

// tamper gives copies of a JSON value, each with one place changed, left out or added.
func tamper(v any) (out []any) {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			for _, other := range tamper(inner) {
				out = append(out, with(maps.Clone(v), request{key: other}))
			}
			less := maps.Clone(v)
			delete(less, key)
			out = append(out, less)
		}
		return append(out, with(maps.Clone(v), request{"more": nil}))
	case []any:
		for i, inner := range v {
			for _, other := range tamper(inner) {
				list := slices.Clone(v)
				list[i] = other
				out = append(out, list)
			}
		}
		return append(out, append(slices.Clone(v), nil))
	case json.Number:
		return []any{v + "0", string(v), nil}
	case string:
		return []any{v + "x", nil}
	case bool:
		return []any{!v, nil}
	default:
		return []any{"x", false}
	}
}
