package grpcapi_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/idempotency"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/pkg/rpc"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// pair makes a certificate and its key, as PEM.
func pair(t *testing.T) (certificate, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &private.PublicKey, private)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(private)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

func TestOnlyForwardedCallersGetIn(t *testing.T) {
	a := start(t)
	req := &webhooksv1.ListEndpointsRequest{}
	_, err := a.client.ListEndpoints(t.Context(), req)
	require.Equal(t, errs.Unauthenticated, errs.KindOf(err), "the suite's token alone is nobody")
	_, err = a.client.ListEndpoints(rpc.WithCaller(t.Context(), rpc.Caller{OrgID: orgA, Subject: "user:1", Scopes: "records:read records:write"}), req)
	require.True(t, errs.HasReason(errs.From(err), "SCOPE_MISSING"), err)
	outside := webhooksv1.NewWebhookServiceClient(dial(t, a.conn.Target(), ""))
	_, err = outside.ListEndpoints(a.as(orgA), req)
	require.Equal(t, errs.Unauthenticated, errs.KindOf(err), "a caller without the token")
	_, err = a.client.ListEndpoints(a.as(orgA), req)
	require.NoError(t, err)
}

// An endpoint's whole life: what is shown, which events it fires, what the audit log says.
func TestLifeOfAnEndpoint(t *testing.T) {
	a := start(t)
	made := a.create(func(r *webhooksv1.CreateEndpointRequest) {
		r.Url, r.Description, r.EventTypes, r.Filter = "HTTPS://receiver.example/hook", "CI", []string{"task.*"}, "event.org_id == 1"
	})
	e := made.GetEndpoint()
	require.Equal(t, "https://receiver.example/hook", e.GetUrl())
	require.True(t, e.GetEnabled())
	require.Equal(t, "standard", e.GetFormat())
	require.Equal(t, "none", e.GetAuth())
	require.EqualValues(t, 1, e.GetVersion())
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(made.GetSecret(), "whsec_"))
	require.NoError(t, err)
	require.Len(t, raw, 32)
	got, err := a.client.GetEndpoint(a.as(orgA), &webhooksv1.GetEndpointRequest{Id: e.GetId()})
	require.NoError(t, err)
	require.True(t, proto.Equal(e, got))

	e, err = a.client.UpdateEndpoint(a.as(orgA), &webhooksv1.UpdateEndpointRequest{Id: e.GetId(), Description: "CI 2", Version: proto.Int64(1)})
	require.NoError(t, err)
	require.EqualValues(t, 2, e.GetVersion())
	require.Equal(t, []string{"task.*"}, e.GetEventTypes(), "what is not named stays")
	_, err = a.client.UpdateEndpoint(a.as(orgA), &webhooksv1.UpdateEndpointRequest{Id: e.GetId(), Description: "x", Version: proto.Int64(1)})
	require.True(t, errs.HasReason(errs.From(err), "VERSION_MISMATCH"))
	same, err := a.client.UpdateEndpoint(a.as(orgA), &webhooksv1.UpdateEndpointRequest{Id: e.GetId(), Description: "CI 2"})
	require.NoError(t, err)
	require.EqualValues(t, 2, same.GetVersion(), "no change, no event")
	e, err = a.client.UpdateEndpoint(a.as(orgA), &webhooksv1.UpdateEndpointRequest{Id: e.GetId(), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"event_types"}}})
	require.NoError(t, err)
	require.Empty(t, e.GetEventTypes(), "named and not set is cleared")

	e, err = a.client.DisableEndpoint(a.as(orgA), &webhooksv1.DisableEndpointRequest{Id: e.GetId()})
	require.NoError(t, err)
	require.Equal(t, "by_hand", e.GetDisabledReason())
	require.NotNil(t, e.GetDisabledAt())
	_, err = a.client.TestEndpoint(a.as(orgA), &webhooksv1.TestEndpointRequest{Id: e.GetId()})
	require.True(t, errs.HasReason(errs.From(err), "ENDPOINT_DISABLED"))
	e, err = a.client.EnableEndpoint(a.as(orgA), &webhooksv1.EnableEndpointRequest{Id: e.GetId()})
	require.NoError(t, err)
	require.True(t, e.GetEnabled())
	require.Empty(t, e.GetDisabledReason())
	rotated, err := a.client.RotateSecret(a.as(orgA), &webhooksv1.RotateSecretRequest{Id: e.GetId()})
	require.NoError(t, err)
	require.NotEqual(t, made.GetSecret(), rotated.GetSecret())
	test, err := a.client.TestEndpoint(a.as(orgA), &webhooksv1.TestEndpointRequest{Id: e.GetId()})
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("msg_%d_%d", test.GetEventId(), e.GetId()), test.GetWebhookId())
	e, err = a.client.ArchiveEndpoint(a.as(orgA), &webhooksv1.ArchiveEndpointRequest{Id: e.GetId()})
	require.NoError(t, err)
	require.NotNil(t, e.GetArchivedAt())
	again, err := a.client.ArchiveEndpoint(a.as(orgA), &webhooksv1.ArchiveEndpointRequest{Id: e.GetId()})
	require.NoError(t, err)
	require.True(t, proto.Equal(e, again))
	_, err = a.client.EnableEndpoint(a.as(orgA), &webhooksv1.EnableEndpointRequest{Id: e.GetId()})
	require.True(t, errs.HasReason(errs.From(err), "ENDPOINT_ARCHIVED"))

	require.Equal(t, []string{"pre_create", "post_create", "pre_update", "post_update", "pre_update", "post_update", "pre_update", "post_update", "disabled",
		"pre_update", "post_update", "enabled", "pre_update", "post_update", "secret_rotated", "test", "pre_archive", "post_archive"}, types(a.eventsOf(e.GetId())))
	first := a.eventsOf(e.GetId())[0]
	require.Equal(t, "CI", first.field(t, "record_name"))
	require.EqualValues(t, user, first.field(t, "actor_id"))
	require.Equal(t, map[string]any{"description": map[string]any{"before": "CI", "after": "CI 2"}}, a.eventsOf(e.GetId())[3].field(t, "changes"))
	var actions string
	require.NoError(t, a.admin.QueryRow(t.Context(), `SELECT string_agg(action || ' ' || outcome || ' ' || host(ip), ', ' ORDER BY id) FROM sametick.audit_entries WHERE aggregate_id = $1`, e.GetId()).Scan(&actions))
	require.Equal(t, "create applied 203.0.113.9, update applied 203.0.113.9, update applied 203.0.113.9, disabled applied 203.0.113.9, "+
		"enabled applied 203.0.113.9, secret_rotated applied 203.0.113.9, test applied 203.0.113.9, archive applied 203.0.113.9", actions)
}

func TestExportAndLists(t *testing.T) {
	a := start(t)
	var ids []int64
	for range 5 {
		ids = append(ids, a.create(nil).GetEndpoint().GetId())
	}
	_, err := a.client.CreateEndpoint(a.as(orgA), &webhooksv1.CreateEndpointRequest{Url: "https://one.too.many"})
	require.True(t, errs.HasReason(errs.From(err), "TOO_MANY_ENDPOINTS"))
	_, err = a.client.ArchiveEndpoint(a.as(orgA), &webhooksv1.ArchiveEndpointRequest{Id: ids[0]})
	require.NoError(t, err)
	a.create(nil)

	var seen []int64
	req := &webhooksv1.ListEndpointsRequest{Limit: proto.Int32(2)}
	for {
		page, err := a.client.ListEndpoints(a.as(orgA), req)
		require.NoError(t, err)
		require.EqualValues(t, 5, page.GetTotal())
		for _, e := range page.GetData() {
			seen = append(seen, e.GetId())
		}
		if page.NextCursor == nil {
			break
		}
		req.Cursor = page.GetNextCursor()
	}
	require.Len(t, seen, 5)
	require.IsDecreasing(t, seen)
	archived, err := a.client.ListEndpoints(a.as(orgA), &webhooksv1.ListEndpointsRequest{IncludeArchived: true})
	require.NoError(t, err)
	require.EqualValues(t, 6, archived.GetTotal())
	for _, bad := range []*webhooksv1.ListEndpointsRequest{{Cursor: "x"}, {Limit: proto.Int32(101)}, {Limit: proto.Int32(-1)}} {
		_, err := a.client.ListEndpoints(a.as(orgA), bad)
		require.Equal(t, errs.Invalid, errs.KindOf(err), bad)
	}

	out, err := a.client.ExportEndpoints(a.as(orgA), &webhooksv1.ExportEndpointsRequest{})
	require.NoError(t, err)
	require.Len(t, out.GetData(), 5)
	var id int64
	require.NoError(t, a.admin.QueryRow(t.Context(), `SELECT aggregate_id FROM sametick.events WHERE event_type = 'webhook_endpoint.post_export'`).Scan(&id))
	exported := a.eventsOf(id)
	require.Equal(t, []string{"pre_export", "post_export"}, types(exported))
	require.Equal(t, out.GetSha256(), exported[1].field(t, "sha256"))
	require.EqualValues(t, 5, exported[1].field(t, "count"))
}

// Each faulty field is named, with its reason, and nothing is written.
func TestFaultyEndpoints(t *testing.T) {
	a := start(t)
	certificate, key := pair(t)
	_, otherKey := pair(t)
	many := make([]string, 201)
	for i := range many {
		many[i] = fmt.Sprintf("task.a%d", i)
	}
	for want, change := range map[string]func(*webhooksv1.CreateEndpointRequest){
		"url REQUIRED":                       func(r *webhooksv1.CreateEndpointRequest) { r.Url = "" },
		"url INVALID_URL":                    func(r *webhooksv1.CreateEndpointRequest) { r.Url = "http://receiver.example" },
		"url TOO_LONG":                       func(r *webhooksv1.CreateEndpointRequest) { r.Url = "https://x.example/" + strings.Repeat("x", 2048) },
		"description TOO_LONG":               func(r *webhooksv1.CreateEndpointRequest) { r.Description = strings.Repeat("ж", 501) },
		"description INVALID_TEXT":           func(r *webhooksv1.CreateEndpointRequest) { r.Description = "a\x00b" },
		"event_types TOO_MANY":               func(r *webhooksv1.CreateEndpointRequest) { r.EventTypes = many },
		"event_types[1] INVALID_VALUE":       func(r *webhooksv1.CreateEndpointRequest) { r.EventTypes = []string{"task.*", "ta*k.x"} },
		"event_types[1] DUPLICATE":           func(r *webhooksv1.CreateEndpointRequest) { r.EventTypes = []string{"task.*", "task.*"} },
		"aggregate_types[0] INVALID_VALUE":   func(r *webhooksv1.CreateEndpointRequest) { r.AggregateTypes = []string{"Task"} },
		"aggregate_ids OUT_OF_RANGE":         func(r *webhooksv1.CreateEndpointRequest) { r.AggregateIds = []int64{1, 0} },
		"aggregate_ids TOO_MANY":             func(r *webhooksv1.CreateEndpointRequest) { r.AggregateIds = make([]int64, 1001) },
		"filter INVALID_CEL":                 func(r *webhooksv1.CreateEndpointRequest) { r.Filter = "event." },
		"filter INVALID_CEL ":                func(r *webhooksv1.CreateEndpointRequest) { r.Filter = `"a text"` },
		"transform INVALID_CEL":              func(r *webhooksv1.CreateEndpointRequest) { r.Transform = "true" },
		"format NOT_IN_ENUM":                 func(r *webhooksv1.CreateEndpointRequest) { r.Format = "xml" },
		"rate_limit OUT_OF_RANGE":            func(r *webhooksv1.CreateEndpointRequest) { r.RateLimit = proto.Int32(0) },
		"headers.Webhook-Id RESERVED":        func(r *webhooksv1.CreateEndpointRequest) { r.Headers = map[string]string{"Webhook-Id": "x"} },
		"headers.host RESERVED":              func(r *webhooksv1.CreateEndpointRequest) { r.Headers = map[string]string{"host": "x"} },
		"headers.transfer-encoding RESERVED": func(r *webhooksv1.CreateEndpointRequest) { r.Headers = map[string]string{"transfer-encoding": "x"} },
		"headers.a b INVALID_HEADER":         func(r *webhooksv1.CreateEndpointRequest) { r.Headers = map[string]string{"a b": "x"} },
		"headers.x-a INVALID_VALUE":          func(r *webhooksv1.CreateEndpointRequest) { r.Headers = map[string]string{"x-a": "1\r\nHost: evil"} },
		"headers.x-a DUPLICATE":              func(r *webhooksv1.CreateEndpointRequest) { r.Headers = map[string]string{"X-A": "1", "x-a": "2"} },
		"auth.kind NOT_IN_ENUM":              func(r *webhooksv1.CreateEndpointRequest) { r.Auth = &webhooksv1.EndpointAuth{Kind: "digest"} },
		"auth.kind REQUIRED":                 func(r *webhooksv1.CreateEndpointRequest) { r.Auth = &webhooksv1.EndpointAuth{Token: "x"} },
		"auth.username INVALID_VALUE": func(r *webhooksv1.CreateEndpointRequest) {
			r.Auth = &webhooksv1.EndpointAuth{Kind: "basic", Username: "a:b"}
		},
		"auth.token INVALID_VALUE": func(r *webhooksv1.CreateEndpointRequest) {
			r.Auth = &webhooksv1.EndpointAuth{Kind: "bearer", Token: "a\nb"}
		},
		"client_key REQUIRED":                      func(r *webhooksv1.CreateEndpointRequest) { r.ClientCertificate = certificate },
		"client_certificate REQUIRED":              func(r *webhooksv1.CreateEndpointRequest) { r.ClientKey = key },
		"client_certificate INVALID_CERTIFICATE":   func(r *webhooksv1.CreateEndpointRequest) { r.ClientCertificate, r.ClientKey = certificate, otherKey },
		"client_certificate INVALID_CERTIFICATE  ": func(r *webhooksv1.CreateEndpointRequest) { r.ClientCertificate, r.ClientKey = "x", "y" },
		"secret INVALID_SECRET":                    func(r *webhooksv1.CreateEndpointRequest) { r.Secret = "whsec_hunter2" },
	} {
		req := &webhooksv1.CreateEndpointRequest{Url: "https://receiver.example/hook"}
		change(req)
		_, err := a.client.CreateEndpoint(a.as(orgA), req)
		e := errs.From(err)
		require.Equal(t, errs.Invalid, e.Kind, want)
		require.Len(t, e.Fields, 1, "%s: %v", want, e.Fields)
		require.Equal(t, strings.TrimSpace(want), e.Fields[0].Field+" "+e.Fields[0].Reason)
	}
	_, err := a.client.UpdateEndpoint(a.as(orgA), &webhooksv1.UpdateEndpointRequest{Id: 1, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"secret", "url"}}})
	require.Equal(t, []errs.Field{{Field: "update_mask", Reason: "UNKNOWN_FIELD", Description: `"secret" cannot be changed`},
		{Field: "url", Reason: "REQUIRED", Description: "an https:// address"}}, errs.From(err).Fields)
	require.Zero(t, a.count("SELECT count(*) FROM sametick.webhook_endpoints"))
	require.Zero(t, a.count("SELECT count(*) FROM sametick.events"))
	certificateOnly := a.create(func(r *webhooksv1.CreateEndpointRequest) { r.ClientCertificate, r.ClientKey = certificate, key })
	require.Equal(t, certificate, certificateOnly.GetEndpoint().GetClientCertificate())
}

// No event, audit entry, log line, error or table ever has a secret; the control finds them where they are shown.
func TestSecretsAreNowhere(t *testing.T) {
	a := start(t)
	certificate, key := pair(t)
	keyBody := strings.Split(key, "\n")[1]
	mine := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	made := a.create(func(r *webhooksv1.CreateEndpointRequest) {
		r.Url = "https://receiver.example/hook/path-sesame?token=query-sesame"
		r.Headers = map[string]string{"X-Key": "header-sesame"}
		r.Auth = &webhooksv1.EndpointAuth{Kind: "basic", Username: "ann", Password: "basic-sesame"}
		r.ClientCertificate, r.ClientKey, r.Asymmetric, r.Secret = certificate, key, true, mine
	})
	require.Equal(t, mine, made.GetSecret(), "the control: shown this once")
	id := made.GetEndpoint().GetId()
	certificate, key = pair(t)
	updated, err := a.client.UpdateEndpoint(a.as(orgA), &webhooksv1.UpdateEndpointRequest{Id: id, Url: "https://other.example/path-sesame",
		Auth: &webhooksv1.EndpointAuth{Kind: "bearer", Token: "bearer-sesame"}, Headers: map[string]string{"X-Key": "header-sesame-2"},
		ClientCertificate: certificate, ClientKey: key})
	require.NoError(t, err)
	require.Equal(t, "bearer", updated.GetAuth())
	rotated, err := a.client.RotateSecret(a.as(orgA), &webhooksv1.RotateSecretRequest{Id: id})
	require.NoError(t, err)
	_, err = a.client.CreateEndpoint(a.as(orgA), &webhooksv1.CreateEndpointRequest{Url: "https://x.example", Secret: "whsec_wrong-sesame",
		Auth: &webhooksv1.EndpointAuth{Kind: "bearer", Token: "wrong sesame"}, Headers: map[string]string{"X-K": "wrong\nsesame"}, ClientCertificate: "sesame", ClientKey: keyBody})
	require.Error(t, err)

	var everything string
	require.NoError(t, a.admin.QueryRow(t.Context(), `SELECT (SELECT string_agg(e::text, '|') FROM sametick.events e) || (SELECT string_agg(e::text, '|') FROM sametick.audit_entries e)`).Scan(&everything))
	require.Contains(t, everything, "receiver.example", "the control: there is something to look at")
	require.Contains(t, a.log.String(), "INVALID_REQUEST", "the control: there are lines")
	everything += a.log.String() + err.Error() + fmt.Sprint(errs.From(err).Fields)
	for _, secret := range []string{"sesame", mine, rotated.GetSecret(), keyBody, strings.Split(key, "\n")[1], base64.StdEncoding.EncodeToString([]byte("ann:basic-sesame"))} {
		require.NotContains(t, everything, secret)
	}
	// In the tables all but the settings that the owner sees is sealed, for this endpoint alone.
	var sealed []byte
	require.NoError(t, a.admin.QueryRow(t.Context(), `SELECT auth_sealed FROM sametick.webhook_endpoints WHERE id = $1`, id).Scan(&sealed))
	opened, err := a.ring.Open(keyring.Owner{OrgID: orgA, ID: id, Purpose: delivery.PurposeAuth}, sealed)
	require.NoError(t, err)
	require.Equal(t, "Bearer bearer-sesame", string(opened))
	_, err = a.ring.Open(keyring.Owner{OrgID: orgB, ID: id, Purpose: delivery.PurposeAuth}, sealed)
	require.ErrorIs(t, err, keyring.ErrRefused)
	require.NoError(t, a.admin.QueryRow(t.Context(), `SELECT client_key_sealed FROM sametick.webhook_endpoints WHERE id = $1`, id).Scan(&sealed))
	opened, err = a.ring.Open(keyring.Owner{OrgID: orgA, ID: id, Purpose: delivery.PurposeClientKey}, sealed)
	require.NoError(t, err)
	require.Equal(t, key, string(opened))
	require.Zero(t, a.count(`SELECT count(*) FROM sametick.webhook_secrets WHERE position('whs' IN encode(sealed, 'escape')) > 0`))
}

// Older secrets sign until the overlap ends.
func TestRotation(t *testing.T) {
	a := start(t)
	made := a.create(func(r *webhooksv1.CreateEndpointRequest) { r.Asymmetric = true })
	id := made.GetEndpoint().GetId()
	require.Len(t, made.GetEndpoint().GetPublicKeys(), 1)
	left := func(kind string) (n int) {
		return a.count(`SELECT count(*) FROM sametick.webhook_secrets WHERE endpoint_id = $1 AND kind = $2 AND (expires_at IS NULL OR expires_at > now())`, id, kind)
	}
	rotated, err := a.client.RotateSecret(a.as(orgA), &webhooksv1.RotateSecretRequest{Id: id})
	require.NoError(t, err)
	require.Len(t, rotated.GetEndpoint().GetPublicKeys(), 2)
	require.Equal(t, made.GetEndpoint().GetPublicKeys()[0], rotated.GetEndpoint().GetPublicKeys()[1], "newest first")
	require.Equal(t, []int{2, 2}, []int{left("v1"), left("v1a")})
	require.Equal(t, 2, a.count(`SELECT count(*) FROM sametick.webhook_secrets WHERE endpoint_id = $1 AND expires_at BETWEEN now() + interval '23 hours' AND now() + interval '25 hours'`, id))
	rotated, err = a.client.RotateSecret(a.as(orgA), &webhooksv1.RotateSecretRequest{Id: id, Overlap: proto.Int64(0)})
	require.NoError(t, err)
	require.Equal(t, []int{1, 1}, []int{left("v1"), left("v1a")}, "0: those before are out at once")
	require.Len(t, rotated.GetEndpoint().GetPublicKeys(), 1)
	off, err := a.client.UpdateEndpoint(a.as(orgA), &webhooksv1.UpdateEndpointRequest{Id: id, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"asymmetric"}}})
	require.NoError(t, err)
	require.Empty(t, off.GetPublicKeys())
	require.Equal(t, []int{1, 0}, []int{left("v1"), left("v1a")})
	for _, bad := range []int64{-1, 604801} {
		_, err := a.client.RotateSecret(a.as(orgA), &webhooksv1.RotateSecretRequest{Id: id, Overlap: &bad})
		require.Equal(t, "OUT_OF_RANGE", errs.From(err).Fields[0].Reason)
	}
}

// A call with an Idempotency-Key is done once, claimed in the transaction of the change.
func TestIdempotencyKey(t *testing.T) {
	a := start(t)
	req := &webhooksv1.CreateEndpointRequest{Url: "https://receiver.example/hook"}
	first, err := a.client.CreateEndpoint(a.keyed("k1"), req)
	require.NoError(t, err)
	var header metadata.MD
	second, err := a.client.CreateEndpoint(a.keyed("k1"), req, grpc.Header(&header))
	require.NoError(t, err)
	require.True(t, proto.Equal(first, second), "the secret too")
	require.Equal(t, []string{"true"}, header.Get(idempotency.Replayed))
	require.Equal(t, 1, a.count("SELECT count(*) FROM sametick.webhook_endpoints"))
	_, err = a.client.CreateEndpoint(a.keyed("k1"), &webhooksv1.CreateEndpointRequest{Url: "https://another.example"})
	require.True(t, errs.HasReason(errs.From(err), "IDEMPOTENCY_KEY_REUSED"))
	_, err = a.client.CreateEndpoint(a.keyed("k2"), &webhooksv1.CreateEndpointRequest{})
	require.Equal(t, errs.Invalid, errs.KindOf(err))
	require.Equal(t, 1, a.count("SELECT count(*) FROM sametick.idempotency_keys"), "what fails leaves no claim")

	// Cut off before the commit, nothing of it is left: neither claim, endpoint nor event.
	a.exec(`CREATE FUNCTION public.cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$`)
	a.exec(`CREATE TRIGGER cut AFTER UPDATE ON sametick.idempotency_keys FOR EACH ROW EXECUTE FUNCTION public.cut()`)
	_, err = a.client.CreateEndpoint(a.keyed("k3"), req)
	require.Error(t, err)
	require.Equal(t, 1, a.count("SELECT count(*) FROM sametick.webhook_endpoints"))
	require.Equal(t, 2, a.count("SELECT count(*) FROM sametick.events"))
	a.exec(`DROP TRIGGER cut ON sametick.idempotency_keys`)
	_, err = a.client.CreateEndpoint(a.keyed("k3"), req)
	require.NoError(t, err)
	require.Equal(t, 2, a.count("SELECT count(*) FROM sametick.webhook_endpoints"))
}

// What is restored is as it was, counts among the endpoints again, and says so by its events.
func TestRestore(t *testing.T) {
	a := start(t)
	e := a.create(nil).GetEndpoint()
	restore := func(ctx context.Context, version *int64) (*webhooksv1.Endpoint, error) {
		return a.client.RestoreEndpoint(ctx, &webhooksv1.RestoreEndpointRequest{Id: e.GetId(), Version: version})
	}
	same, err := restore(a.as(orgA), nil)
	require.NoError(t, err)
	require.True(t, proto.Equal(e, same), "what is not archived stays as it is")
	_, err = a.client.DisableEndpoint(a.as(orgA), &webhooksv1.DisableEndpointRequest{Id: e.GetId()})
	require.NoError(t, err)
	a.exec(`UPDATE sametick.webhook_endpoints SET failing_since = now() - interval '4 days', from_position = 40`)
	e, err = a.client.ArchiveEndpoint(a.as(orgA), &webhooksv1.ArchiveEndpointRequest{Id: e.GetId()})
	require.NoError(t, err)
	_, err = restore(a.as(orgA), proto.Int64(1))
	require.True(t, errs.HasReason(errs.From(err), "VERSION_MISMATCH"))

	for range 5 { // as many as there may be
		a.create(nil)
	}
	_, err = restore(a.as(orgA), nil)
	require.True(t, errs.HasReason(errs.From(err), "TOO_MANY_ENDPOINTS"))
	require.Equal(t, 40, a.count(`SELECT from_position FROM sametick.webhook_endpoints WHERE id = $1`, e.GetId()), "nothing of it stays")
	a.exec(`UPDATE sametick.webhook_endpoints SET archived_at = now() WHERE id = (SELECT max(id) FROM sametick.webhook_endpoints)`)

	back, err := restore(a.keyed("once"), proto.Int64(e.GetVersion()))
	require.NoError(t, err)
	again, err := restore(a.keyed("once"), proto.Int64(e.GetVersion()))
	require.NoError(t, err)
	require.True(t, proto.Equal(back, again))
	require.Nil(t, back.GetArchivedAt())
	require.False(t, back.GetEnabled(), "disabled it stays")
	require.Equal(t, "by_hand", back.GetDisabledReason())
	require.Nil(t, back.GetFailingSince())
	require.Equal(t, e.GetVersion()+1, back.GetVersion())
	events := a.eventsOf(e.GetId())
	require.Equal(t, []string{"pre_create", "post_create", "pre_update", "post_update", "disabled", "pre_archive", "post_archive",
		"pre_update", "post_update", "restored"}, types(events))
	require.Equal(t, map[string]any{"archived_at": map[string]any{"before": e.GetArchivedAt().AsTime().Format("2006-01-02T15:04:05.000Z"), "after": nil}},
		events[8].field(t, "changes"))
	require.Equal(t, 1, a.count(`SELECT count(*) FROM sametick.audit_entries WHERE aggregate_id = $1 AND action = 'restored'`, e.GetId()))
	require.Equal(t, -a.count(`SELECT id FROM sametick.events WHERE event_type = 'webhook_endpoint.restored'`),
		a.count(`SELECT from_position FROM sametick.webhook_endpoints WHERE id = $1`, e.GetId()), "it waits for its own event")
	_, err = restore(a.as(orgB), nil)
	require.Equal(t, errs.NotFound, errs.KindOf(err))
}
