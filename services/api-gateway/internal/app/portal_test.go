package app

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/auth"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/pkg/telemetry"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/grpcapi"
)

// sibling is where WebhookService is in the suite: it notes who asks it for what, and has no endpoint.
type sibling struct {
	webhooksv1.UnimplementedWebhookServiceServer
	mu      sync.Mutex
	callers map[string]rpc.Caller // by method
}

func (s *sibling) CreatePortalLink(ctx context.Context, req *webhooksv1.CreatePortalLinkRequest) (*webhooksv1.PortalLink, error) {
	end := time.Now().Add(time.Hour)
	if req.Ttl != nil {
		end = time.Now().Add(time.Duration(req.GetTtl()) * time.Second)
	}
	return &webhooksv1.PortalLink{ExpiresAt: timestamppb.New(end.Truncate(time.Second))}, nil
}

func (s *sibling) ListEndpoints(context.Context, *webhooksv1.ListEndpointsRequest) (*webhooksv1.ListEndpointsResponse, error) {
	return &webhooksv1.ListEndpointsResponse{}, nil
}

func (s *sibling) take() map[string]rpc.Caller {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.callers
	s.callers = map[string]rpc.Caller{}
	return taken
}

// startWithWebhooks starts the service beside a webhook-worker that has nothing.
func startWithWebhooks(t *testing.T, change func(*Config)) (*suite, *sibling) {
	other := &sibling{callers: map[string]rpc.Caller{}}
	guard, _ := rpc.InternalAuth("0123456789abcdef")
	note := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		c, _ := rpc.CallerOf(ctx)
		other.mu.Lock()
		other.callers[info.FullMethod] = c
		other.mu.Unlock()
		return next(ctx, req)
	}
	worker := rpc.NewServer(rpc.ServerOptions{Addr: "127.0.0.1:0", Log: telemetry.NewLogger(t.Output(), "sibling", nil), Registry: telemetry.NewRegistry(),
		Unary: []grpc.UnaryServerInterceptor{guard, note}, Register: func(r grpc.ServiceRegistrar) { webhooksv1.RegisterWebhookServiceServer(r, other) }})
	require.NoError(t, worker.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, worker.Stop(context.WithoutCancel(t.Context()))) })
	return start(t, func(c *Config) {
		c.WebhookAddr = worker.Addr()
		if change != nil {
			change(c)
		}
	}), other
}

type wirePortal struct {
	URL       string
	ExpiresAt time.Time `json:"expires_at"`
}

// portal makes a link as who has a token, and gives the link's own.
func (s *suite) portal(token, body string) string {
	s.t.Helper()
	a := s.call("POST", "/api/webhooks/portal", token, body)
	require.Equal(s.t, http.StatusOK, a.status, a.text)
	var link wirePortal
	a.into(s.t, &link)
	u, err := url.Parse(link.URL)
	require.NoError(s.t, err)
	require.Empty(s.t, u.RawQuery, "no log may have it")
	own, ok := strings.CutPrefix(u.Fragment, "token=")
	require.True(s.t, ok, link.URL)
	require.True(s.t, auth.IsPortal(own))
	return own
}

func TestPortalLink(t *testing.T) {
	s, other := startWithWebhooks(t, nil)
	var link wirePortal
	s.call("POST", "/api/webhooks/portal", s.session().AccessToken, `{"ttl":600,"endpoint_ids":[4,5]}`).into(t, &link)
	require.True(t, strings.HasPrefix(link.URL, s.url+"/api/portal/#token=stw_"), link.URL)
	require.WithinDuration(t, time.Now().Add(10*time.Minute), link.ExpiresAt, 10*time.Second)
	maker := other.take()[webhooksv1.WebhookService_CreatePortalLink_FullMethodName]
	require.Nil(t, maker.Portal)
	require.Nil(t, maker.ExpiresAt, "a session goes on")
	_, token, _ := strings.Cut(link.URL, "#token=")
	require.Equal(t, http.StatusOK, s.call("GET", "/api/webhooks/endpoints", token, "").status)
	by := other.take()[webhooksv1.WebhookService_ListEndpoints_FullMethodName]
	require.Equal(t, []int64{4, 5}, by.Portal.Endpoints)
	require.NotEmpty(t, by.Portal.ID)
	require.Empty(t, by.Scopes, "an older webhook-worker must not take it for its maker")
	require.Equal(t, []any{s.a.OrgID, s.a.UserID}, []any{by.OrgID, *by.UserID})

	// Of a token that ends by itself the worker is told when.
	exchanged, err := s.g.identity.ExchangeKey(t.Context(), s.a.APIKey)
	require.NoError(t, err)
	s.portal(exchanged.Access, `{}`)
	require.WithinDuration(t, time.Now().Add(time.Hour), *other.take()[webhooksv1.WebhookService_CreatePortalLink_FullMethodName].ExpiresAt, time.Minute)

	// Another organisation's link is another organisation's.
	require.Equal(t, http.StatusOK, s.call("GET", "/api/webhooks/endpoints", s.portal(s.b.APIKey, `{}`), "").status)
	require.Equal(t, s.b.OrgID, other.take()[webhooksv1.WebhookService_ListEndpoints_FullMethodName].OrgID)

	overGRPC, err := webhooksv1.NewWebhookServiceClient(s.conn).CreatePortalLink(as(t.Context(), s.a.APIKey), &webhooksv1.CreatePortalLinkRequest{})
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(overGRPC.GetUrl(), "/api/portal/#token=stw_"), "no address is known")
	require.Equal(t, "SCOPE_MISSING", s.call("POST", "/api/webhooks/portal", s.tokensOf(s.user("eve@acme.example", s.role("r", auth.RecordsRead).ID).Email).AccessToken, `{}`).problem(t).Reason)
	require.NotContains(t, s.log.String(), token)
	require.NotContains(t, s.log.String(), "stw_")
}

// The address of a link is PUBLIC_URL's, else that of the call, whose scheme only our own proxies may say.
func TestPortalAddress(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		header map[string]string
		host   string
		want   string
	}{
		"the call's":           {nil, nil, "api.example.com", "http://api.example.com/api/portal/#"},
		"anybody's word":       {nil, map[string]string{"X-Forwarded-Proto": "https"}, "api.example.com", "http://api.example.com/api/portal/#"},
		"a proxy's word":       {func(c *Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }, map[string]string{"X-Forwarded-Proto": "https"}, "api.example.com:444", "https://api.example.com:444/api/portal/#"},
		"the installation's":   {func(c *Config) { c.PublicURL = "https://example.com/sametick/" }, nil, "evil.example", "https://example.com/sametick/api/portal/#"},
		"a host that is none":  {nil, nil, "a@evil.example", "/api/portal/#"},
		"another one of those": {nil, nil, "evil.example/x", "/api/portal/#"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := startWithWebhooks(t, c.change)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/api/webhooks/portal", strings.NewReader("{}"))
			require.NoError(t, err)
			req.Host = c.host
			req.Header.Set("Authorization", "Bearer "+s.a.APIKey)
			for k, v := range c.header {
				req.Header.Set(k, v)
			}
			a := s.do(req)
			if a.status == http.StatusBadRequest && a.text != "" && !strings.HasPrefix(a.text, "{") {
				return // net/http has refused the host itself
			}
			var link wirePortal
			a.into(t, &link)
			require.True(t, strings.HasPrefix(link.URL, c.want), link.URL)
		})
	}
}

// A link's token opens what it is for and nothing else of all that the running service offers, over gRPC and REST. The
// control is its maker, who is refused none of it in that way.
func TestPortalTokenOpensNothingElse(t *testing.T) {
	s, other := startWithWebhooks(t, nil)
	token := s.portal("", `{}`)
	other.take()

	// gRPC: each method of each service, as the types of this program have them.
	invoke := func(full string, d protoreflect.MethodDescriptor, token string) error {
		in, out := dynamicpb.NewMessage(d.Input()), dynamicpb.NewMessage(d.Output())
		if !d.IsStreamingServer() {
			return s.conn.Invoke(as(t.Context(), token), full, in, out)
		}
		ctx, cancel := context.WithCancel(as(t.Context(), token))
		defer cancel()
		stream, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, full)
		require.NoError(t, err)
		require.NoError(t, stream.SendMsg(in))
		require.NoError(t, stream.CloseSend())
		return stream.RecvMsg(out)
	}
	served := grpcServices(t, s)
	seen := 0
	for _, name := range served {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		require.NoError(t, err)
		for i := range d.(protoreflect.ServiceDescriptor).Methods().Len() {
			m := d.(protoreflect.ServiceDescriptor).Methods().Get(i)
			full := "/" + name + "/" + string(m.Name())
			err := invoke(full, m, token)
			_, reached := other.take()[full]
			if slices.Contains(grpcapi.PortalMethods(), full) {
				seen++
				require.True(t, reached, full)
				continue
			}
			require.False(t, reached, full)
			require.Equal(t, "PORTAL_TOKEN", errs.From(err).Reason, full)
		}
	}
	require.Len(t, grpcapi.PortalMethods(), seen)

	// REST: each route of proto/http.yaml, and those beside it.
	for _, r := range restRoutes(t) {
		body := map[string]string{"POST": "{}", "PATCH": "{}"}[r.verb]
		path := regexp.MustCompile(`\{(type|aggregate_type|name|label)\}`).ReplaceAllString(r.path, "task")
		path = regexp.MustCompile(`\{[a-z_]+\}`).ReplaceAllString(path, "1")
		other.take()
		a := s.call(r.verb, path, token, body)
		_, reached := other.take()[r.full]
		if slices.Contains(grpcapi.PortalMethods(), r.full) {
			require.True(t, reached, "%s %s: %d %s", r.verb, path, a.status, a.text)
			continue
		}
		require.False(t, reached, path)
		require.Equal(t, http.StatusForbidden, a.status, "%s %s: %s", r.verb, path, a.text)
		require.Equal(t, "PORTAL_TOKEN", a.problem(t).Reason, path)
		if r.verb == http.MethodGet { // the control
			require.NotContains(t, s.call(r.verb, path, "", body).text, "PORTAL_TOKEN", path)
		}
	}
	require.Equal(t, "PORTAL_TOKEN", s.call("GET", "/api/audit/export", token, "").problem(t).Reason)
	require.Equal(t, http.StatusUnauthorized, s.call("GET", "/api/events/stream", token, "").status)
	require.Equal(t, http.StatusUnauthorized, s.call("GET", "/api/events/stream?token="+token, "-", "").status)
	bare := strings.TrimPrefix(token, auth.PortalPrefix)
	require.Equal(t, "TOKEN_INVALID", s.call("GET", "/api/webhooks/endpoints", bare, "").problem(t).Reason, "it is no access token")
	require.Equal(t, "TOKEN_INVALID", s.call("GET", "/api/events/stream?token="+bare, "-", "").problem(t).Reason)
}

// grpcServices asks the running server what it serves.
func grpcServices(t *testing.T, s *suite) (list []string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := grpc_reflection_v1.NewServerReflectionClient(s.conn).ServerReflectionInfo(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}))
	answer, err := stream.Recv()
	require.NoError(t, err)
	for _, service := range answer.GetListServicesResponse().GetService() {
		if !strings.HasPrefix(service.GetName(), "grpc.") { // health and reflection, which are for everybody
			list = append(list, service.GetName())
		}
	}
	require.NotEmpty(t, list)
	return list
}

type restRoute struct{ full, verb, path string }

func restRoutes(t *testing.T) (list []restRoute) {
	text, err := os.ReadFile("../../../../proto/http.yaml")
	require.NoError(t, err)
	full := ""
	for _, m := range regexp.MustCompile(`(?m)^ +(?:- )?(selector|get|post|patch|delete|put): (\S+)`).FindAllStringSubmatch(string(text), -1) {
		if m[1] == "selector" {
			i := strings.LastIndexByte(m[2], '.')
			full = "/" + m[2][:i] + "/" + m[2][i+1:]
			continue
		}
		list = append(list, restRoute{full, strings.ToUpper(m[1]), m[2]})
	}
	require.NotEmpty(t, list)
	return list
}

// A link ends with whatever it was made by; another one, made at the same time by somebody else, goes on.
func TestPortalLinkEnds(t *testing.T) {
	works := func(s *suite, token string) bool {
		a := s.call("GET", "/api/webhooks/endpoints", token, "")
		if a.status != http.StatusOK {
			require.Equal(s.t, http.StatusUnauthorized, a.status, a.text)
			require.Equal(s.t, "TOKEN_REVOKED", a.problem(s.t).Reason)
		}
		return a.status == http.StatusOK
	}
	s, _ := startWithWebhooks(t, nil)
	role := s.role("hooks", auth.WebhooksManage)
	manager := func(email string) (wireUser, wireTokens) {
		u := s.user(email, role.ID)
		return u, s.tokensOf(email)
	}
	key := func() (id int64, secret string) {
		k, secret := s.key("", `{"name":"ci","scopes":["webhooks:manage"]}`)
		return k.ID, secret
	}
	stays := s.portal(s.session().AccessToken, `{}`)
	for i, end := range []struct {
		name string
		how  func(email string) (token string, end func())
	}{
		{"its user is archived", func(email string) (string, func()) {
			u, tokens := manager(email)
			return s.portal(tokens.AccessToken, `{}`), func() { s.ok("DELETE", fmt.Sprintf("/api/users/%d", u.ID), "", nil) }
		}},
		{"its user logs out everywhere", func(email string) (string, func()) {
			_, tokens := manager(email)
			elsewhere := s.tokensOf(email)
			return s.portal(tokens.AccessToken, `{}`), func() {
				require.Equal(t, http.StatusOK, s.call("POST", "/api/auth/logout", "-", fmt.Sprintf(`{"refresh_token":%q,"all":true}`, elsewhere.RefreshToken)).status)
			}
		}},
		{"its session ends", func(email string) (string, func()) {
			_, tokens := manager(email)
			return s.portal(tokens.AccessToken, `{}`), func() {
				require.Equal(t, http.StatusOK, s.call("POST", "/api/auth/logout", "-", fmt.Sprintf(`{"refresh_token":%q}`, tokens.RefreshToken)).status)
			}
		}},
		{"its user loses the scope", func(email string) (string, func()) {
			u, tokens := manager(email)
			return s.portal(tokens.AccessToken, `{}`), func() { s.ok("PATCH", fmt.Sprintf("/api/users/%d", u.ID), `{"roles":[]}`, nil) }
		}},
		{"its key is archived", func(string) (string, func()) {
			id, secret := key()
			return s.portal(secret, `{}`), func() { s.ok("DELETE", fmt.Sprintf("/api/api-keys/%d", id), "", nil) }
		}},
		{"its key gets another secret", func(string) (string, func()) {
			id, secret := key()
			return s.portal(secret, `{}`), func() { s.ok("POST", fmt.Sprintf("/api/api-keys/%d:rotate", id), `{}`, nil) }
		}},
		{"the user of its key is archived", func(email string) (string, func()) {
			u := s.user(email, s.administrator())
			_, secret := s.key(s.tokensOf(email).AccessToken, `{"name":"ci","scopes":["webhooks:manage"]}`)
			return s.portal(secret, `{}`), func() { s.ok("DELETE", fmt.Sprintf("/api/users/%d", u.ID), "", nil) }
		}},
	} {
		token, do := end.how(fmt.Sprintf("u%d@acme.example", i))
		require.True(t, works(s, token), "the control: %s", end.name)
		do()
		require.False(t, works(s, token), end.name)
		require.True(t, works(s, stays), "another one's after %s", end.name)
	}
	stale, err := s.signer.SignPortal(auth.Principal{OrgID: s.a.OrgID, UserID: &s.a.UserID, Subject: auth.Subject(auth.SubjectUser, s.a.UserID), Portal: &auth.Portal{}}, time.Now().Add(-time.Minute))
	require.NoError(t, err)
	require.Equal(t, "TOKEN_EXPIRED", s.call("GET", "/api/webhooks/endpoints", stale, "").problem(t).Reason)
	s.ok("DELETE", "/api/organization", "", nil)
	require.False(t, works(s, stays), "with its organisation")
}

// A secret that was rotated makes no link any more, also where it is believed for some seconds yet: the link would live on.
func TestRotatedKeyMakesNoLink(t *testing.T) {
	s, _ := startWithWebhooks(t, nil)
	other, _ := startWithWebhooks(t, func(c *Config) { c.DatabaseURL = s.g.config.DatabaseURL })
	key, secret := s.key("", `{"name":"ci","scopes":["webhooks:manage"]}`)
	require.Equal(t, http.StatusOK, other.call("GET", "/api/webhooks/endpoints", secret, "").status)
	s.ok("POST", fmt.Sprintf("/api/api-keys/%d:rotate", key.ID), `{}`, nil)
	require.Equal(t, http.StatusOK, other.call("GET", "/api/webhooks/endpoints", secret, "").status, "the control: it is believed for 10 s")
	require.Equal(t, "TOKEN_INVALID", other.call("POST", "/api/webhooks/portal", secret, `{}`).problem(t).Reason)
}
