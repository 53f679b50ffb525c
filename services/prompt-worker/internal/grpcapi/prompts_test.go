package grpcapi_test

import (
	"fmt"
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
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

func TestOnlyForwardedCallersGetIn(t *testing.T) {
	a := start(t)
	req := &promptsv1.ListHooksRequest{}
	_, err := a.client.ListHooks(t.Context(), req)
	require.Equal(t, errs.Unauthenticated, errs.KindOf(err), "the suite's token alone is nobody")
	_, err = a.client.ListHooks(rpc.WithCaller(t.Context(), rpc.Caller{OrgID: orgA, Subject: "user:1", Scopes: "webhooks:manage records:write"}), req)
	require.True(t, errs.HasReason(errs.From(err), "SCOPE_MISSING"), err)
	_, err = promptsv1.NewPromptServiceClient(dial(t, a.conn.Target(), "")).ListHooks(a.as(orgA), req)
	require.Equal(t, errs.Unauthenticated, errs.KindOf(err), "a caller without the token")
	_, err = a.client.ListHooks(a.as(orgA), req)
	require.NoError(t, err)
}

func TestLifeOfATemplate(t *testing.T) {
	a := start(t)
	id := a.template()
	v, err := a.client.CreateTemplateVersion(a.as(orgA), &promptsv1.CreateTemplateVersionRequest{TemplateId: id, Note: "shorter",
		Messages: []*promptsv1.Message{{Role: "user", Text: "Sum up."}}})
	require.NoError(t, err)
	require.EqualValues(t, 2, v.GetVersion())
	got := must[*promptsv1.TemplateVersion](t)(a.client.GetTemplateVersion(a.as(orgA), &promptsv1.GetTemplateVersionRequest{TemplateId: id, Version: 1}))
	require.Equal(t, "Sum up {{ name }}.", got.GetMessages()[0].GetText(), "versions never change")
	list := must[*promptsv1.ListTemplateVersionsResponse](t)(a.client.ListTemplateVersions(a.as(orgA), &promptsv1.ListTemplateVersionsRequest{TemplateId: id}))
	require.Equal(t, []int32{2, 1}, []int32{list.GetData()[0].GetVersion(), list.GetData()[1].GetVersion()})
	diff := must[*promptsv1.DiffTemplateVersionsResponse](t)(a.client.DiffTemplateVersions(a.as(orgA), &promptsv1.DiffTemplateVersionsRequest{TemplateId: id, From: 1, To: 2}))
	require.Contains(t, diff.GetDiff(), "-Sum up {{ name }}.\n---- variable name from payload.record_name\n+Sum up.\n")

	set := func(version int32, force bool) error {
		_, err := a.client.SetTemplateLabel(a.as(orgA), &promptsv1.SetTemplateLabelRequest{TemplateId: id, Label: "production", Version: version, Force: force})
		return err
	}
	require.NoError(t, set(1, false))
	require.NoError(t, set(2, false), "nothing follows it")
	_, err = a.client.CreateHook(a.as(orgA), a.async(func(r *promptsv1.CreateHookRequest) {
		r.TemplateId, r.TemplateVersion, r.TemplateLabel = id, 0, "production"
	}))
	require.NoError(t, err)
	require.True(t, errs.HasReason(errs.From(set(1, false)), "BACKTEST_REQUIRED"))
	require.NoError(t, set(1, true))
	require.True(t, errs.HasReason(errs.From(set(3, true)), "VERSION_UNKNOWN"))
	tpl := must[*promptsv1.Template](t)(a.client.GetTemplate(a.as(orgA), &promptsv1.GetTemplateRequest{Id: id}))
	require.True(t, proto.Equal(&promptsv1.TemplateLabel{Name: "production", Version: 1, Protected: true}, tpl.GetLabels()[0]))
	require.EqualValues(t, 2, tpl.GetLatest())

	e := a.event("post_create", 7, "Call </data> back", nil)
	prompt := must[*promptsv1.RenderTemplateResponse](t)(a.client.RenderTemplate(a.as(orgA), &promptsv1.RenderTemplateRequest{TemplateId: id, Version: 1, EventId: e}))
	require.Equal(t, "system", prompt.GetMessages()[0].GetRole(), "the fence's sentence")
	require.Regexp(t, `Sum up .*Call`, prompt.GetMessages()[1].GetText())
	require.NotContains(t, prompt.GetMessages()[1].GetText(), "Call </data> back", "in its fence")
	require.Empty(t, a.model.Asked())

	tpl = must[*promptsv1.Template](t)(a.client.ArchiveTemplate(a.as(orgA), &promptsv1.ArchiveTemplateRequest{Id: id}))
	require.NotNil(t, tpl.GetArchivedAt())
	_, err = a.client.CreateHook(a.as(orgA), a.async(func(r *promptsv1.CreateHookRequest) { r.TemplateId = id }))
	require.Equal(t, map[string]string{"template_id": "ARCHIVED"}, faults(err))
	require.Equal(t, []string{"pre_create", "post_create", "pre_update", "post_update", "pre_update", "post_update", "pre_update", "post_update", "pre_update",
		"post_update", "pre_archive", "post_archive"}, a.events(hooks.TypeTemplate, id))
}

func TestFaultyTemplates(t *testing.T) {
	a := start(t)
	for want, req := range map[string]*promptsv1.CreateTemplateRequest{
		"name REQUIRED":                    {Messages: []*promptsv1.Message{{Role: "user", Text: "x"}}},
		"messages REQUIRED":                {Name: "x"},
		"messages[0].role NOT_IN_ENUM":     {Name: "x", Messages: []*promptsv1.Message{{Role: "tool", Text: "x"}, {Role: "user", Text: "x"}}},
		"messages[0].text INVALID_TEXT":    {Name: "x", Messages: []*promptsv1.Message{{Role: "user", Text: "x\x00"}}},
		"variables[0].path INVALID_FORMAT": {Name: "x", Messages: []*promptsv1.Message{{Role: "user", Text: "x"}}, Variables: []*promptsv1.Variable{{Name: "a", Path: "nowhere.x"}}},
	} {
		_, err := a.client.CreateTemplate(a.as(orgA), req)
		require.Equal(t, errs.Invalid, errs.KindOf(err), want)
		found := faults(err)
		for field, reason := range found {
			require.Equal(t, want, field+" "+reason)
		}
		require.Len(t, found, 1, want)
	}
	_, err := a.client.CreateTemplate(a.as(orgA), &promptsv1.CreateTemplateRequest{Name: "x", Messages: []*promptsv1.Message{{Role: "user", Text: "a\n{{ unknown }}"}}})
	require.Contains(t, errs.From(err).Fields[0].Description, "line 2")
}

// A key is nowhere but sealed, is opened for its provider alone and is sent to no other origin.
func TestProviderKeys(t *testing.T) {
	a := start(t)
	id := a.provider()
	p := must[*promptsv1.Provider](t)(a.client.GetProvider(a.as(orgA), &promptsv1.GetProviderRequest{Id: id}))
	require.Equal(t, "zqzq", p.GetKeyHint())
	require.NotContains(t, p.String(), "very-secret")
	require.NotContains(t, a.log.String(), "very-secret")
	require.Zero(t, a.Count(`SELECT count(*) FROM sametick.events WHERE payload::text LIKE '%very-secret%'`))
	require.Zero(t, a.Count(`SELECT count(*) FROM sametick.prompt_providers WHERE position('very-secret'::bytea IN key_sealed) > 0`))
	stored, err := a.Store.GetProvider(t.Context(), orgA, id)
	require.NoError(t, err)
	key, err := a.ring.Open(keyring.Owner{OrgID: orgA, ID: id, Purpose: hooks.PurposeProviderKey}, stored.KeySealed)
	require.NoError(t, err)
	require.Equal(t, "sk-very-secret-zqzq", string(key))

	update := func(req *promptsv1.UpdateProviderRequest) (*promptsv1.Provider, error) {
		req.Id = id
		return a.client.UpdateProvider(a.as(orgA), req)
	}
	_, err = update(&promptsv1.UpdateProviderRequest{BaseUrl: "https://thief.example/v1"})
	require.Equal(t, map[string]string{"key": "REQUIRED"}, faults(err))
	_, err = update(&promptsv1.UpdateProviderRequest{BaseUrl: "http://10.0.0.1"})
	require.Equal(t, map[string]string{"base_url": "INVALID_URL"}, faults(err))
	p, err = update(&promptsv1.UpdateProviderRequest{BaseUrl: "https://models.example/v2"})
	require.NoError(t, err, "the same origin")
	require.Equal(t, "zqzq", p.GetKeyHint())
	_, err = update(&promptsv1.UpdateProviderRequest{Name: "x", Version: proto.Int64(1)})
	require.True(t, errs.HasReason(errs.From(err), "VERSION_MISMATCH"))
	p, err = update(&promptsv1.UpdateProviderRequest{BaseUrl: "https://other.example", UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"base_url", "key"}}})
	require.NoError(t, err, "without the key")
	require.Empty(t, p.GetKeyHint())
	for want, req := range map[string]*promptsv1.CreateProviderRequest{
		"kind NOT_IN_ENUM":         {Name: "x", Kind: "rules"},
		"key INVALID_VALUE":        {Name: "x", Kind: "openai", Key: "a b"},
		"concurrency OUT_OF_RANGE": {Name: "x", Kind: "openai", Concurrency: -1},
		"name REQUIRED":            {Kind: "anthropic"},
	} {
		_, err := a.client.CreateProvider(a.as(orgA), req)
		for field, reason := range faults(err) {
			require.Equal(t, want, field+" "+reason)
		}
		require.Len(t, faults(err), 1, want)
	}
	_, err = a.client.ArchiveProvider(a.as(orgA), &promptsv1.ArchiveProviderRequest{Id: id})
	require.NoError(t, err)
	_, err = update(&promptsv1.UpdateProviderRequest{Name: "x"})
	require.True(t, errs.HasReason(errs.From(err), "ARCHIVED"))
}

func TestMcpServers(t *testing.T) {
	a := start(t)
	m := must[*promptsv1.McpServer](t)(a.client.CreateMcpServer(a.as(orgA), &promptsv1.CreateMcpServerRequest{Name: "search", Transport: "http", Url: "https://tools.example/mcp",
		Headers: map[string]string{"Authorization": "Bearer very-secret"}}))
	require.NotContains(t, m.String(), "very-secret")
	require.Zero(t, a.Count(`SELECT count(*) FROM sametick.events WHERE payload::text LIKE '%very-secret%'`))
	_, err := a.client.ListMcpTools(a.as(orgA), &promptsv1.ListMcpToolsRequest{Id: m.GetId()})
	require.True(t, errs.HasReason(errs.From(err), "MCP_SERVER_UNAVAILABLE"))
	a.offered = []prompting.Tool{{Name: "find", Description: "finds", Schema: []byte(`{"type":"object"}`)}}
	tools := must[*promptsv1.ListMcpToolsResponse](t)(a.client.ListMcpTools(a.as(orgA), &promptsv1.ListMcpToolsRequest{Id: m.GetId()}))
	require.Equal(t, `{"type":"object"}`, tools.GetData()[0].GetInputSchema().GetText())
	_, err = a.client.CreateHook(a.as(orgA), a.async(func(r *promptsv1.CreateHookRequest) {
		r.Tools = []*promptsv1.ToolGrant{{McpServerId: m.GetId(), Tools: []string{"find"}}}
	}))
	require.NoError(t, err)
	for want, req := range map[string]*promptsv1.CreateMcpServerRequest{
		"transport NOT_IN_ENUM":      {Name: "x", Transport: "tcp"},
		"command NOT_ALLOWED":        {Name: "x", Transport: "stdio", Command: []string{"/bin/sh", "-c", "id"}},
		"url INVALID_URL":            {Name: "x", Transport: "http", Url: "http://127.0.0.1"},
		"headers.a b INVALID_HEADER": {Name: "x", Transport: "http", Url: "https://a.example", Headers: map[string]string{"a b": "x"}},
		"headers.X INVALID_VALUE":    {Name: "x", Transport: "http", Url: "https://a.example", Headers: map[string]string{"X": "a\r\nb"}},
		"headers.Host RESERVED":      {Name: "x", Transport: "http", Url: "https://a.example", Headers: map[string]string{"Host": "b"}},
	} {
		_, err := a.client.CreateMcpServer(a.as(orgA), req)
		for field, reason := range faults(err) {
			require.Equal(t, want, field+" "+reason)
		}
		require.Len(t, faults(err), 1, want)
	}
	_, err = a.client.CreateMcpServer(a.as(orgA), &promptsv1.CreateMcpServerRequest{Name: "x", Transport: "stdio", Command: []string{"/bin/tools"}})
	require.NoError(t, err)
	_, err = a.client.ArchiveMcpServer(a.as(orgA), &promptsv1.ArchiveMcpServerRequest{Id: m.GetId()})
	require.NoError(t, err)
	_, err = a.client.ListMcpTools(a.as(orgA), &promptsv1.ListMcpToolsRequest{Id: m.GetId()})
	require.True(t, errs.HasReason(errs.From(err), "ARCHIVED"))
	list := must[*promptsv1.ListMcpServersResponse](t)(a.client.ListMcpServers(a.as(orgA), &promptsv1.ListMcpServersRequest{}))
	require.EqualValues(t, 1, list.GetTotal())
}

// A review hook's whole life: what is shown, what api-gateway knows of it, which events it fires.
func TestLifeOfAHook(t *testing.T) {
	a := start(t)
	known := func(id int64) int {
		return a.Count(`SELECT count(*) FROM sametick.review_hooks WHERE hook_id = $1`, id)
	}
	h := must[*promptsv1.Hook](t)(a.client.CreateHook(a.as(orgA), review()))
	require.Equal(t, []string{"fail_closed", "enforce"}, []string{h.GetFailurePolicy(), h.GetEnforcement()}, "what is safe is the default")
	require.True(t, h.GetEnabled())
	require.Equal(t, 1, known(h.GetId()))
	require.True(t, proto.Equal(h, must[*promptsv1.Hook](t)(a.client.GetHook(a.as(orgA), &promptsv1.GetHookRequest{Id: h.GetId()}))))

	h = must[*promptsv1.Hook](t)(a.client.UpdateHook(a.as(orgA), &promptsv1.UpdateHookRequest{Id: h.GetId(), Enabled: proto.Bool(false), Version: proto.Int64(1)}))
	require.False(t, h.GetEnabled())
	require.Len(t, h.GetRules(), 1, "what is not named stays")
	require.Zero(t, known(h.GetId()))
	_, err := a.client.UpdateHook(a.as(orgA), &promptsv1.UpdateHookRequest{Id: h.GetId(), Enabled: proto.Bool(true), Version: proto.Int64(1)})
	require.True(t, errs.HasReason(errs.From(err), "VERSION_MISMATCH"))
	_, err = a.client.UpdateHook(a.as(orgA), &promptsv1.UpdateHookRequest{Id: h.GetId(), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"mode"}}})
	require.Equal(t, map[string]string{"update_mask": "UNKNOWN_FIELD"}, faults(err))
	_, err = a.client.UpdateHook(a.as(orgA), &promptsv1.UpdateHookRequest{Id: h.GetId(), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"rules"}}})
	require.Equal(t, map[string]string{"template_id": "REQUIRED"}, faults(err), "named and not set is cleared, and then it has nothing to say")
	h = must[*promptsv1.Hook](t)(a.client.UpdateHook(a.as(orgA), &promptsv1.UpdateHookRequest{Id: h.GetId(), Enabled: proto.Bool(true), FailurePolicy: "fail_open"}))
	require.Equal(t, 1, a.Count(`SELECT count(*) FROM sametick.review_hooks WHERE hook_id = $1 AND failure_policy = 'fail_open'`, h.GetId()))
	h = must[*promptsv1.Hook](t)(a.client.ArchiveHook(a.as(orgA), &promptsv1.ArchiveHookRequest{Id: h.GetId()}))
	require.NotNil(t, h.GetArchivedAt())
	require.Zero(t, known(h.GetId()))
	_, err = a.client.UpdateHook(a.as(orgA), &promptsv1.UpdateHookRequest{Id: h.GetId(), Name: "x"})
	require.True(t, errs.HasReason(errs.From(err), "ARCHIVED"))
	require.Equal(t, []string{"pre_create", "post_create", "pre_update", "post_update", "pre_update", "post_update", "pre_archive", "post_archive"},
		a.events(hooks.TypeHook, h.GetId()))
	var audit string
	require.NoError(t, a.Admin.QueryRow(t.Context(), `SELECT string_agg(action || ' ' || outcome || ' ' || host(ip), ', ' ORDER BY id) FROM sametick.audit_entries WHERE aggregate_id = $1`, h.GetId()).Scan(&audit))
	require.Equal(t, "create applied 203.0.113.9, update applied 203.0.113.9, update applied 203.0.113.9, archive applied 203.0.113.9", audit)
}

func TestKeysDoOnce(t *testing.T) {
	a := start(t)
	first := must[*promptsv1.Hook](t)(a.client.CreateHook(a.keyed("k"), review()))
	var header metadata.MD
	again, err := a.client.CreateHook(a.keyed("k"), review(), grpc.Header(&header))
	require.NoError(t, err)
	require.True(t, proto.Equal(first, again))
	require.Equal(t, []string{"true"}, header.Get(idempotency.Replayed))
	require.Equal(t, 1, a.Count(`SELECT count(*) FROM sametick.prompt_hooks`))
	_, err = a.client.CreateHook(a.keyed("k"), review(func(r *promptsv1.CreateHookRequest) { r.Name = "other" }))
	require.True(t, errs.HasReason(errs.From(err), "IDEMPOTENCY_KEY_REUSED"))
	h, err := a.client.UpdateHook(a.keyed("u"), &promptsv1.UpdateHookRequest{Id: first.GetId(), Name: "renamed"})
	require.NoError(t, err)
	require.EqualValues(t, 2, h.GetVersion())
	_, err = a.client.DryRunHook(a.keyed("d"), &promptsv1.DryRunHookRequest{Id: first.GetId(), EventId: 1})
	require.Equal(t, map[string]string{"Idempotency-Key": "NOT_SUPPORTED"}, faults(err))
}

func TestHookPages(t *testing.T) {
	a := start(t)
	var ids, seen []int64
	for i := range 5 {
		ids = append([]int64{must[*promptsv1.Hook](t)(a.client.CreateHook(a.as(orgA), review(func(r *promptsv1.CreateHookRequest) { r.Name = fmt.Sprint(i) }))).GetId()}, ids...)
	}
	req := &promptsv1.ListHooksRequest{Limit: proto.Int32(2)}
	for more := true; more; {
		page := must[*promptsv1.ListHooksResponse](t)(a.client.ListHooks(a.as(orgA), req))
		require.EqualValues(t, 5, page.GetTotal())
		for _, h := range page.GetData() {
			seen = append(seen, h.GetId())
		}
		more, req.Cursor = page.NextCursor != nil, page.GetNextCursor()
	}
	require.Equal(t, ids, seen)
	for field, bad := range map[string]*promptsv1.ListHooksRequest{"limit": {Limit: proto.Int32(101)}, "cursor": {Cursor: "x"}} {
		_, err := a.client.ListHooks(a.as(orgA), bad)
		require.Contains(t, faults(err), field)
	}
}

func TestFaultyHooks(t *testing.T) {
	a := start(t)
	tpl, prov := a.template(), a.provider()
	bare := must[*promptsv1.Provider](t)(a.client.CreateProvider(a.as(orgA), &promptsv1.CreateProviderRequest{Name: "p", Kind: "anthropic"})).GetId()
	type change = func(*promptsv1.CreateHookRequest)
	for _, c := range []struct {
		want   string
		review bool
		change change
	}{
		{"name REQUIRED", true, func(r *promptsv1.CreateHookRequest) { r.Name = "" }},
		{"mode NOT_IN_ENUM", true, func(r *promptsv1.CreateHookRequest) { r.Mode = "both"; r.EventTypes = []string{"task.*"} }},
		{"event_types OUT_OF_RANGE", true, func(r *promptsv1.CreateHookRequest) { r.EventTypes = nil }},
		{"event_types[0] NOT_REVIEWED", true, func(r *promptsv1.CreateHookRequest) { r.EventTypes = []string{"task.post_create"} }},
		{"event_types[0] NOT_REVIEWED", true, func(r *promptsv1.CreateHookRequest) { r.EventTypes = []string{"task.*"} }},
		{"event_types[0] NOT_REVIEWED", true, func(r *promptsv1.CreateHookRequest) { r.EventTypes = []string{"*"} }},
		{"event_types[1] NOT_REVIEWED", true, func(r *promptsv1.CreateHookRequest) { r.EventTypes = []string{"*.pre_update", "user.pre_update"} }},
		{"event_types[0] NOT_REVIEWED", true, func(r *promptsv1.CreateHookRequest) { r.EventTypes = []string{"prompt_hook.pre_archive"} }},
		{"event_types[0] INVALID_FORMAT", true, func(r *promptsv1.CreateHookRequest) { r.EventTypes = []string{"t*sk.pre_create"} }},
		{"event_types[1] DUPLICATE", true, func(r *promptsv1.CreateHookRequest) { r.EventTypes = []string{"*.pre_update", "*.pre_update"} }},
		{"condition SYNTAX", true, func(r *promptsv1.CreateHookRequest) { r.Condition = "after." }},
		{"rules[0].expression SYNTAX", true, func(r *promptsv1.CreateHookRequest) { r.Rules[0].Expression = `"no bool"` }},
		{"rules[1].id DUPLICATE", true, func(r *promptsv1.CreateHookRequest) { r.Rules = append(r.Rules, r.Rules[0]) }},
		{"rules[0].reason INVALID_TEXT", true, func(r *promptsv1.CreateHookRequest) { r.Rules[0].Reason = "\x00" }},
		{"template_id REQUIRED", true, func(r *promptsv1.CreateHookRequest) { r.Rules = nil }},
		{"failure_policy NOT_IN_ENUM", true, func(r *promptsv1.CreateHookRequest) { r.FailurePolicy = "hope" }},
		{"enforcement NOT_IN_ENUM", true, func(r *promptsv1.CreateHookRequest) { r.Enforcement = "maybe" }},
		{"timeout_ms OUT_OF_RANGE", true, func(r *promptsv1.CreateHookRequest) { r.TimeoutMs = 10_001 }},
		{"budget OUT_OF_RANGE", true, func(r *promptsv1.CreateHookRequest) { r.Budget = &promptsv1.Budget{Runs: proto.Int64(-1)} }},
		{"provider_id REQUIRED", true, func(r *promptsv1.CreateHookRequest) { r.ProviderId = prov }},
		{"output_schema NOT_ALLOWED", true, func(r *promptsv1.CreateHookRequest) {
			r.TemplateId, r.TemplateVersion, r.ProviderId, r.OutputSchema = tpl, 1, prov, &wirev1.Json{Text: `{"type":"object"}`}
		}},
		{"provider_id REQUIRED", false, func(r *promptsv1.CreateHookRequest) { r.ProviderId = 0; r.Model = "m" }},
		{"provider_id NOT_FOUND", false, func(r *promptsv1.CreateHookRequest) { r.ProviderId = 1 << 40 }},
		{"fallback_provider_ids[0] NOT_FOUND", false, func(r *promptsv1.CreateHookRequest) { r.FallbackProviderIds = []int64{1 << 40} }},
		{"model REQUIRED", false, func(r *promptsv1.CreateHookRequest) { r.ProviderId = bare }},
		{"template_id NOT_FOUND", false, func(r *promptsv1.CreateHookRequest) { r.TemplateId = 1 << 40 }},
		{"template_version NOT_FOUND", false, func(r *promptsv1.CreateHookRequest) { r.TemplateVersion = 2 }},
		{"template_label NOT_FOUND", false, func(r *promptsv1.CreateHookRequest) { r.TemplateVersion, r.TemplateLabel = 0, "production" }},
		{"template_version REQUIRED", false, func(r *promptsv1.CreateHookRequest) { r.TemplateLabel = "latest" }},
		{"candidate_version NOT_FOUND", false, func(r *promptsv1.CreateHookRequest) { r.CandidateVersion, r.CandidatePercentage = 2, 10 }},
		{"candidate_percentage OUT_OF_RANGE", false, func(r *promptsv1.CreateHookRequest) { r.CandidateVersion, r.CandidatePercentage = 1, 101 }},
		{"candidate_percentage OUT_OF_RANGE", false, func(r *promptsv1.CreateHookRequest) { r.CandidatePercentage = 1 }},
		{"parameters INVALID_FORMAT", false, func(r *promptsv1.CreateHookRequest) { r.Parameters = &wirev1.Json{Text: `[]`} }},
		{"parameters.temperature OUT_OF_RANGE", false, func(r *promptsv1.CreateHookRequest) { r.Parameters = &wirev1.Json{Text: `{"temperature":3}`} }},
		{"output_schema NOT_OF_OBJECTS", false, func(r *promptsv1.CreateHookRequest) { r.OutputSchema = &wirev1.Json{Text: `{"type":"string"}`} }},
		{"rules NOT_ALLOWED", false, func(r *promptsv1.CreateHookRequest) { r.Rules = []*promptsv1.Rule{{Id: "a", Expression: "1"}} }},
		{"tools[0].mcp_server_id NOT_FOUND", false, func(r *promptsv1.CreateHookRequest) {
			r.Tools = []*promptsv1.ToolGrant{{McpServerId: 1 << 40, Tools: []string{"x"}}}
		}},
		{"tools INVALID_FORMAT", false, func(r *promptsv1.CreateHookRequest) {
			r.Tools = []*promptsv1.ToolGrant{{McpServerId: must[*promptsv1.McpServer](t)(a.client.CreateMcpServer(a.as(orgA), &promptsv1.CreateMcpServerRequest{Name: "x", Transport: "stdio", Command: []string{"/bin/tools"}})).GetId()}}
		}},
		{"timeout_ms OUT_OF_RANGE", false, func(r *promptsv1.CreateHookRequest) { r.TimeoutMs = -1 }},
	} {
		req := review()
		if !c.review {
			req = a.async()
		}
		c.change(req)
		_, err := a.client.CreateHook(a.as(orgA), req)
		require.Equal(t, errs.Invalid, errs.KindOf(err), c.want)
		for field, reason := range faults(err) {
			require.Equal(t, c.want, field+" "+reason)
		}
		require.Len(t, errs.From(err).Fields, 1, c.want)
	}
	_, err := a.client.CreateHook(a.as(orgA), review(func(r *promptsv1.CreateHookRequest) { r.Rules[0].Expression = "after.name ==\n  1 +" }))
	require.Contains(t, errs.From(err).Fields[0].Description, "line 2, column", "an error says where")
	_, err = a.client.CreateHook(a.as(orgA), review(func(r *promptsv1.CreateHookRequest) { r.EventTypes = []string{"user.pre_update"} }))
	require.Contains(t, errs.From(err).Fields[0].Description, "lock everybody out", "and why")
	require.Zero(t, a.Count(`SELECT count(*) FROM sametick.prompt_hooks`))
	_, err = a.client.CreateHook(a.as(orgA), a.async())
	require.NoError(t, err, "the control")
}
