package tenancy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/sametick/sametick/services/api-gateway/internal/gatewaytest"
)

func TestMain(m *testing.M) {
	// The tests' own Postgres lives as long as their process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/sametick/sametick/pkg/devstack.StartProcess.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).Start.func2"))
}

// world is a running api-gateway with what it offers, and two organisations with data in all of it.
type world struct {
	t       *testing.T
	g       *gatewaytest.Gateway
	spy     *spy
	methods []*method
	a, b    *side
	drawn   int
}

// method is one RPC and its routes, if it has any.
type method struct {
	name       string // Service.Method
	full       string
	descriptor protoreflect.MethodDescriptor
	routes     []route
}

type route struct{ verb, path string }

// reads tells whether a method only reads.
func (m *method) reads() bool {
	if len(m.routes) > 0 {
		return m.routes[0].verb == http.MethodGet
	}
	name := string(m.descriptor.Name())
	return strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List")
}

// side is one organisation, acting.
type side struct {
	gatewaytest.Org
	w   *world
	own map[string]int64
	// once is the Idempotency-Key of its calls, or empty.
	once string
}

// request is the JSON of a request or an answer.
type request = map[string]any

func newWorld(t *testing.T) *world { return newWorldWith(t, nil) }

// newWorldWith makes one whose service has more in its environment.
func newWorldWith(t *testing.T, more map[string]string) *world {
	w := &world{t: t, spy: newSpy(t)}
	w.g = gatewaytest.Start(t, func(env map[string]string) {
		env["DATABASE_URL"] = w.spy.before(env["DATABASE_URL"])
		maps.Copy(env, more)
	})
	// Audit entries get ids that no event has: an event's id of A's must not be an entry's of B's.
	for _, sql := range []string{`ALTER TABLE sametick.audit_entries DISABLE TRIGGER append_only`, `DELETE FROM sametick.audit_entries`,
		`ALTER TABLE sametick.audit_entries ENABLE TRIGGER append_only`, `ALTER SEQUENCE sametick.audit_entries_id_seq RESTART WITH 30000001`} {
		_, err := w.g.Admin.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	w.discover()
	w.a, w.b = &side{Org: w.g.A, w: w, own: map[string]int64{}}, &side{Org: w.g.B, w: w, own: map[string]int64{}}
	plant(w.a)
	plant(w.b)
	return w
}

// discover asks the running server what it offers.
func (w *world) discover() {
	t := w.t
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := grpc_reflection_v1.NewServerReflectionClient(w.g.Conn).ServerReflectionInfo(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}))
	answer, err := stream.Recv()
	require.NoError(t, err)
	routes := routesOf(t)
	for _, s := range answer.GetListServicesResponse().GetService() {
		if strings.HasPrefix(s.GetName(), "grpc.") {
			continue
		}
		if elsewhere()[s.GetName()] != "" {
			maps.DeleteFunc(routes, func(method string, _ []route) bool { return strings.HasPrefix(method, s.GetName()+".") })
			continue
		}
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(s.GetName()))
		require.NoError(t, err)
		service, _ := d.(protoreflect.ServiceDescriptor)
		for i := range service.Methods().Len() {
			d := service.Methods().Get(i)
			own := routes[string(d.FullName())]
			delete(routes, string(d.FullName()))
			w.methods = append(w.methods, &method{string(service.Name()) + "." + string(d.Name()),
				"/" + s.GetName() + "/" + string(d.Name()), d, own})
		}
	}
	require.Empty(t, routes, "routes of proto/http.yaml that no method of the server has")
	require.NotEmpty(t, w.methods)
}

// routesOf reads proto/http.yaml, which the routes are generated from, by full method name.
func routesOf(t *testing.T) map[string][]route {
	t.Helper()
	text, err := os.ReadFile("../../../../proto/http.yaml")
	require.NoError(t, err)
	routes := map[string][]route{}
	selector := ""
	for _, m := range regexp.MustCompile(`(?m)^ +(?:- )?(selector|get|post|patch|delete|put): (\S+)`).FindAllStringSubmatch(string(text), -1) {
		if m[1] == "selector" {
			selector = m[2]
			continue
		}
		routes[selector] = append(routes[selector], route{strings.ToUpper(m[1]), m[2]})
	}
	return routes
}

func (w *world) method(name string) *method {
	w.t.Helper()
	i := slices.IndexFunc(w.methods, func(m *method) bool { return m.name == name })
	require.GreaterOrEqual(w.t, i, 0, "no method %s", name)
	return w.methods[i]
}

// text is a fresh text of A's, plain for B.
func (s *side) text(mark string) string {
	s.w.drawn++
	if s.OrgID != s.w.g.A.OrgID {
		mark = "of-b"
	}
	return fmt.Sprintf("%s-%d", mark, s.w.drawn)
}

// must calls a method over REST, where it has a route, and gives the answer.
func (s *side) must(name string, r request) request {
	s.w.t.Helper()
	m := s.w.method(name)
	call := s.grpc
	if len(m.routes) > 0 {
		call = s.rest(m.routes[0])
	}
	said := call(m, r)
	require.True(s.w.t, said.ok, "%s(%v): %s", name, r, said.text)
	var out request
	require.NoError(s.w.t, json.Unmarshal([]byte(said.text), &out), said.text)
	return out
}

func (s *side) id(r request) int64 {
	n, ok := r["id"].(float64)
	require.True(s.w.t, ok, "no id: %v", r)
	return int64(n)
}

// said is an answer of either side.
type said struct {
	ok bool
	// code is the status; text is the answer as JSON, or the error and all its details.
	code, text string
	// head are the headers, of REST.
	head string
	// What it was made from: of gRPC the messages and the error, of REST the answer.
	messages []proto.Message
	err      error
	answer   gatewaytest.Answer
}

// transports are the ways to call a method.
func (s *side) transports(m *method) map[string]func(*method, request) said {
	ways := map[string]func(*method, request) said{"gRPC": s.grpc}
	for i, r := range m.routes {
		ways[strings.Repeat("another ", i)+"REST"] = s.rest(r)
	}
	return ways
}

func (s *side) grpc(m *method, r request) said {
	s.w.t.Helper()
	s, r = s.actor(r)
	in, out := dynamicpb.NewMessage(m.descriptor.Input()), dynamicpb.NewMessage(m.descriptor.Output())
	if err := fill(in, r); err != nil {
		return said{code: "unsent", text: err.Error()}
	}
	ctx := gatewaytest.As(s.w.t.Context(), s.APIKey)
	if s.once != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", s.once)
	}
	var messages []proto.Message
	var err error
	if m.descriptor.IsStreamingServer() {
		messages, err = s.stream(ctx, m, in)
	} else if err = s.w.g.Conn.Invoke(ctx, m.full, in, out); err == nil {
		messages = []proto.Message{out}
	}
	if err != nil {
		st := status.Convert(err)
		return said{code: st.Code().String(), text: text(request{"message": st.Message(), "details": st.Details()}), err: err}
	}
	texts := make([]string, len(messages))
	for i, out := range messages {
		texts[i] = text(plainJSON(out.ProtoReflect()))
	}
	return said{ok: true, code: "OK", text: strings.Join(texts, "\n"), messages: messages}
}

func (s *side) stream(ctx context.Context, m *method, in *dynamicpb.Message) (messages []proto.Message, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.w.g.Conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, m.full)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(in); err != nil {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	for {
		out := dynamicpb.NewMessage(m.descriptor.Output())
		if err := stream.RecvMsg(out); err != nil {
			if errors.Is(err, io.EOF) {
				return messages, nil
			}
			return messages, err
		}
		messages = append(messages, out)
	}
}

// rest calls by a route.
func (s *side) rest(by route) func(*method, request) said {
	return func(_ *method, r request) said {
		t := s.w.t
		t.Helper()
		s, r := s.actor(r)
		path, q := by.path, url.Values{}
		for key, v := range r {
			if strings.Contains(path, "{"+key+"}") {
				path = strings.ReplaceAll(path, "{"+key+"}", url.PathEscape(plain(v)))
				delete(r, key)
			}
		}
		if strings.Contains(path, "{") {
			return said{code: "unsent", text: "no value for " + path}
		}
		body := []byte{}
		if by.verb != http.MethodPost && by.verb != http.MethodPatch {
			for key, v := range r {
				list, ok := v.([]any)
				if !ok {
					list = []any{v}
				}
				for _, one := range list {
					q.Add(key, plain(one))
				}
			}
			path += "?" + q.Encode()
		} else {
			body = []byte(text(r))
		}
		req, err := http.NewRequestWithContext(t.Context(), by.verb, s.w.g.URL+path, bytes.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+s.APIKey)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("User-Agent", s.text(secretMark))
		if s.once != "" {
			req.Header.Set("Idempotency-Key", s.once)
		}
		a, err := gatewaytest.Do(req)
		require.NoError(t, err)
		return said{ok: a.Status < 300, code: fmt.Sprint(a.Status), text: a.Body, head: text(a.Header), answer: a}
	}
}

// asKey is where a request says who else shall send it: one who may be locked out by it.
const asKey = "\x00as"

// actor gives who sends a request, and the request without saying so.
func (s *side) actor(r request) (*side, request) {
	r = maps.Clone(r)
	if token, ok := r[asKey].(string); ok {
		other := *s
		other.APIKey = token
		s = &other
	}
	delete(r, asKey)
	return s, r
}

func plain(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return text(v)
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
