package rest

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sametick/sametick/pkg/errs"
	auditv1 "github.com/sametick/sametick/proto/gen/go/sametick/audit/v1"
	eventsv1 "github.com/sametick/sametick/proto/gen/go/sametick/events/v1"
	identityv1 "github.com/sametick/sametick/proto/gen/go/sametick/identity/v1"
	promptsv1 "github.com/sametick/sametick/proto/gen/go/sametick/prompts/v1"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
	typesv1 "github.com/sametick/sametick/proto/gen/go/sametick/types/v1"
	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
	workflowv1 "github.com/sametick/sametick/proto/gen/go/sametick/workflow/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/paging"
)

// route is what the form of a request is checked against.
type route struct {
	message proto.Message
	// pages is the rule for limit and page, where there are any.
	pages paging.Rule
}

// routes gives every route, by method and path as in proto/http.yaml.
func routes() map[string]route {
	table := map[string]route{
		"POST /api/records/{type}":              {message: &recordsv1.CreateRecordRequest{}},
		"GET /api/records/{type}":               {message: &recordsv1.ListRecordsRequest{}, pages: paging.Standard},
		"GET /api/records/{type}/{id}":          {message: &recordsv1.GetRecordRequest{}},
		"PATCH /api/records/{type}/{id}":        {message: &recordsv1.UpdateRecordRequest{}},
		"DELETE /api/records/{type}/{id}":       {message: &recordsv1.ArchiveRecordRequest{}},
		"POST /api/records/{type}/{id}:restore": {message: &recordsv1.RestoreRecordRequest{}},
		"POST /api/records/{type}:batch":        {message: &recordsv1.BatchRecordsRequest{}},
		"POST /api/records/{type}:export":       {message: &recordsv1.ExportRecordsRequest{}},

		"GET /api/audit":                             {message: &auditv1.ListEntriesRequest{}, pages: paging.Standard},
		"GET /api/audit/{id}":                        {message: &auditv1.GetEntryRequest{}},
		"GET /api/audit/export":                      {message: &auditv1.ExportEntriesRequest{}},
		"GET /api/audit/proofs/head":                 {message: &auditv1.GetHeadRequest{}},
		"GET /api/audit/proofs/inclusion/{entry_id}": {message: &auditv1.GetInclusionProofRequest{}},
		"GET /api/audit/proofs/consistency":          {message: &auditv1.GetConsistencyProofRequest{}},

		"POST /api/workflows":                                       {message: &workflowv1.StartWorkflowRequest{}},
		"GET /api/workflows/{id}":                                   {message: &workflowv1.GetWorkflowRequest{}},
		"POST /api/workflows/{id}:cancel":                           {message: &workflowv1.CancelWorkflowRequest{}},
		"POST /api/workflows/{workflow_id}/steps/{step_id}:pass":    {message: &workflowv1.PassStepRequest{}},
		"POST /api/workflows/{workflow_id}/steps/{step_id}:fail":    {message: &workflowv1.FailStepRequest{}},
		"POST /api/workflows/{workflow_id}/steps/{step_id}:approve": {message: &workflowv1.ApproveStepRequest{}},
		"POST /api/workflows/definitions":                           {message: &workflowv1.CreateDefinitionRequest{}},
		"GET /api/workflows/definitions":                            {message: &workflowv1.ListDefinitionsRequest{}, pages: paging.Standard},
		"GET /api/workflows/definitions/{id}":                       {message: &workflowv1.GetDefinitionRequest{}},
		"PATCH /api/workflows/definitions/{id}":                     {message: &workflowv1.UpdateDefinitionRequest{}},
		"DELETE /api/workflows/definitions/{id}":                    {message: &workflowv1.ArchiveDefinitionRequest{}},

		"POST /api/types":          {message: &typesv1.CreateTypeRequest{}},
		"GET /api/types":           {message: &typesv1.ListTypesRequest{}},
		"GET /api/types/{name}":    {message: &typesv1.GetTypeRequest{}},
		"PATCH /api/types/{name}":  {message: &typesv1.UpdateTypeRequest{}},
		"DELETE /api/types/{name}": {message: &typesv1.ArchiveTypeRequest{}},

		"GET /api/events": {message: &eventsv1.ListEventsRequest{}, pages: paging.Standard},
		"GET /api/events/{aggregate_type}/{aggregate_id}": {message: &eventsv1.ListEntityEventsRequest{}, pages: paging.History},

		"POST /api/auth/login":      {message: &identityv1.LoginRequest{}},
		"POST /api/auth/refresh":    {message: &identityv1.RefreshRequest{}},
		"POST /api/auth/logout":     {message: &identityv1.LogoutRequest{}},
		"POST /api/api-keys":        {message: &identityv1.CreateApiKeyRequest{}},
		"GET /api/api-keys":         {message: &identityv1.ListApiKeysRequest{}, pages: paging.Standard},
		"DELETE /api/api-keys/{id}": {message: &identityv1.ArchiveApiKeyRequest{}},

		"POST /api/api-keys/{id}:rotate":    {message: &identityv1.RotateApiKeyRequest{}},
		"POST /api/auth/password":           {message: &identityv1.ChangePasswordRequest{}},
		"POST /api/auth/password/reset":     {message: &identityv1.ResetPasswordRequest{}},
		"POST /api/auth/invitations/accept": {message: &identityv1.AcceptInvitationRequest{}},
		"GET /api/auth/sessions":            {message: &identityv1.ListSessionsRequest{}, pages: paging.Standard},
		"DELETE /api/auth/sessions":         {message: &identityv1.EndSessionsRequest{}},
		"DELETE /api/auth/sessions/{id}":    {message: &identityv1.EndSessionRequest{}},
		"GET /api/auth/jwks.json":           {message: &identityv1.ListSigningKeysRequest{}},
		"GET /.well-known/jwks.json":        {message: &identityv1.ListSigningKeysRequest{}},

		"POST /api/users":                     {message: &identityv1.CreateUserRequest{}},
		"POST /api/users/invitations":         {message: &identityv1.InviteUserRequest{}},
		"GET /api/users":                      {message: &identityv1.ListUsersRequest{}, pages: paging.Standard},
		"GET /api/users/{id}":                 {message: &identityv1.GetUserRequest{}},
		"PATCH /api/users/{id}":               {message: &identityv1.UpdateUserRequest{}},
		"DELETE /api/users/{id}":              {message: &identityv1.ArchiveUserRequest{}},
		"POST /api/users/{id}:reset-password": {message: &identityv1.StartPasswordResetRequest{}},
		"POST /api/roles":                     {message: &identityv1.CreateRoleRequest{}},
		"GET /api/roles":                      {message: &identityv1.ListRolesRequest{}, pages: paging.Standard},
		"GET /api/roles/{id}":                 {message: &identityv1.GetRoleRequest{}},
		"PATCH /api/roles/{id}":               {message: &identityv1.UpdateRoleRequest{}},
		"DELETE /api/roles/{id}":              {message: &identityv1.ArchiveRoleRequest{}},
		"GET /api/organization":               {message: &identityv1.GetOrganizationRequest{}},
		"PATCH /api/organization":             {message: &identityv1.UpdateOrganizationRequest{}},
		"DELETE /api/organization":            {message: &identityv1.ArchiveOrganizationRequest{}},
	}
	maps.Copy(table, webhookRoutes())
	maps.Copy(table, promptRoutes())
	return table
}

func webhookRoutes() map[string]route {
	return map[string]route{
		"POST /api/webhooks/endpoints":                    {message: &webhooksv1.CreateEndpointRequest{}},
		"GET /api/webhooks/endpoints":                     {message: &webhooksv1.ListEndpointsRequest{}, pages: paging.Standard},
		"GET /api/webhooks/endpoints/{id}":                {message: &webhooksv1.GetEndpointRequest{}},
		"PATCH /api/webhooks/endpoints/{id}":              {message: &webhooksv1.UpdateEndpointRequest{}},
		"DELETE /api/webhooks/endpoints/{id}":             {message: &webhooksv1.ArchiveEndpointRequest{}},
		"POST /api/webhooks/endpoints/{id}:restore":       {message: &webhooksv1.RestoreEndpointRequest{}},
		"POST /api/webhooks/endpoints/{id}:enable":        {message: &webhooksv1.EnableEndpointRequest{}},
		"POST /api/webhooks/endpoints/{id}:disable":       {message: &webhooksv1.DisableEndpointRequest{}},
		"POST /api/webhooks/endpoints:export":             {message: &webhooksv1.ExportEndpointsRequest{}},
		"POST /api/webhooks/endpoints/{id}:rotate-secret": {message: &webhooksv1.RotateSecretRequest{}},
		"GET /api/webhooks/endpoints/{id}/stats":          {message: &webhooksv1.GetEndpointStatsRequest{}},
		"POST /api/webhooks/endpoints/{id}:test":          {message: &webhooksv1.TestEndpointRequest{}},
		"POST /api/webhooks/endpoints:try":                {message: &webhooksv1.TryEndpointRequest{}},
		"POST /api/webhooks/endpoints/{id}:recover":       {message: &webhooksv1.RecoverEndpointRequest{}},
		"POST /api/webhooks/endpoints/{id}:replay":        {message: &webhooksv1.ReplayEndpointRequest{}},
		"GET /api/webhooks/replays":                       {message: &webhooksv1.ListReplaysRequest{}},
		"POST /api/webhooks/replays/{id}:cancel":          {message: &webhooksv1.CancelReplayRequest{}},
		"GET /api/webhooks/deliveries":                    {message: &webhooksv1.ListDeliveriesRequest{}, pages: paging.Standard},
		"GET /api/webhooks/deliveries/{id}":               {message: &webhooksv1.GetDeliveryRequest{}},
		"POST /api/webhooks/deliveries/{id}:redeliver":    {message: &webhooksv1.RedeliverDeliveryRequest{}},
		"POST /api/webhooks/deliveries/{id}:skip":         {message: &webhooksv1.SkipDeliveryRequest{}},
		"GET /api/webhooks/attempts":                      {message: &webhooksv1.ListAttemptsRequest{}, pages: paging.Standard},
		"GET /api/webhooks/attempts/{id}":                 {message: &webhooksv1.GetAttemptRequest{}},
		"POST /api/webhooks/portal":                       {message: &webhooksv1.CreatePortalLinkRequest{}},
	}
}

func promptRoutes() map[string]route {
	return map[string]route{
		"POST /api/prompts/templates":                                 {message: &promptsv1.CreateTemplateRequest{}},
		"GET /api/prompts/templates":                                  {message: &promptsv1.ListTemplatesRequest{}, pages: paging.Standard},
		"GET /api/prompts/templates/{id}":                             {message: &promptsv1.GetTemplateRequest{}},
		"DELETE /api/prompts/templates/{id}":                          {message: &promptsv1.ArchiveTemplateRequest{}},
		"POST /api/prompts/templates/{template_id}/versions":          {message: &promptsv1.CreateTemplateVersionRequest{}},
		"GET /api/prompts/templates/{template_id}/versions":           {message: &promptsv1.ListTemplateVersionsRequest{}},
		"GET /api/prompts/templates/{template_id}/versions/{version}": {message: &promptsv1.GetTemplateVersionRequest{}},
		"GET /api/prompts/templates/{template_id}/diff":               {message: &promptsv1.DiffTemplateVersionsRequest{}},
		"POST /api/prompts/templates/{template_id}/labels/{label}":    {message: &promptsv1.SetTemplateLabelRequest{}},
		"POST /api/prompts/templates/{template_id}:render":            {message: &promptsv1.RenderTemplateRequest{}},
		"POST /api/prompts/providers":                                 {message: &promptsv1.CreateProviderRequest{}},
		"GET /api/prompts/providers":                                  {message: &promptsv1.ListProvidersRequest{}},
		"GET /api/prompts/providers/{id}":                             {message: &promptsv1.GetProviderRequest{}},
		"PATCH /api/prompts/providers/{id}":                           {message: &promptsv1.UpdateProviderRequest{}},
		"DELETE /api/prompts/providers/{id}":                          {message: &promptsv1.ArchiveProviderRequest{}},
		"POST /api/prompts/mcp-servers":                               {message: &promptsv1.CreateMcpServerRequest{}},
		"GET /api/prompts/mcp-servers":                                {message: &promptsv1.ListMcpServersRequest{}},
		"GET /api/prompts/mcp-servers/{id}":                           {message: &promptsv1.GetMcpServerRequest{}},
		"DELETE /api/prompts/mcp-servers/{id}":                        {message: &promptsv1.ArchiveMcpServerRequest{}},
		"POST /api/prompts/hooks":                                     {message: &promptsv1.CreateHookRequest{}},
		"GET /api/prompts/hooks":                                      {message: &promptsv1.ListHooksRequest{}, pages: paging.Standard},
		"GET /api/prompts/hooks/{id}":                                 {message: &promptsv1.GetHookRequest{}},
		"PATCH /api/prompts/hooks/{id}":                               {message: &promptsv1.UpdateHookRequest{}},
		"DELETE /api/prompts/hooks/{id}":                              {message: &promptsv1.ArchiveHookRequest{}},
		"GET /api/prompts/mcp-servers/{id}/tools":                     {message: &promptsv1.ListMcpToolsRequest{}},
		"POST /api/prompts/hooks/{id}:dry-run":                        {message: &promptsv1.DryRunHookRequest{}},
		"POST /api/prompts/hooks/{id}:backtest":                       {message: &promptsv1.BacktestHookRequest{}},
		"GET /api/prompts/backtests":                                  {message: &promptsv1.ListBacktestsRequest{}, pages: paging.Standard},
		"GET /api/prompts/backtests/{id}":                             {message: &promptsv1.GetBacktestRequest{}},
		"POST /api/prompts/backtests/{id}:cancel":                     {message: &promptsv1.CancelBacktestRequest{}},
		"GET /api/prompts/runs":                                       {message: &promptsv1.ListRunsRequest{}, pages: paging.Standard},
		"GET /api/prompts/runs/{id}":                                  {message: &promptsv1.GetRunRequest{}},
	}
}

// variable finds {name=*}, as grpc-gateway writes the variables of a pattern.
var variable = regexp.MustCompile(`\{([a-z_]+)=\*\}`)

// checkForm is grpc-gateway's middleware: it refuses path variables and query parameters that its
// generated code would refuse with a text alone, or take silently.
func (g *gateway) checkForm(next runtime.HandlerFunc) runtime.HandlerFunc {
	table := routes()
	return func(w http.ResponseWriter, r *http.Request, path map[string]string) {
		pattern, _ := runtime.HTTPPattern(r.Context())
		method := r.Method
		if method == http.MethodHead { // of the one route that has it of its own
			method = http.MethodGet
		}
		found, ok := table[method+" "+variable.ReplaceAllString(pattern.String(), "{$1}")]
		if !ok {
			g.problems.write(w, r, errs.New(errs.Internal, "INTERNAL", "internal error").
				WithCause(fmt.Errorf("no route %s %s in the table", method, pattern)))
			return
		}
		if err := found.check(path, r); err != nil {
			g.problems.write(w, r, err)
			return
		}
		if b, ok := r.Body.(*body); ok {
			b.path = path
		}
		next(w, r, path)
	}
}

func (t route) check(path map[string]string, r *http.Request) *errs.Error {
	for _, check := range []func(*http.Request) *errs.Error{checkIfMatch, checkKey} {
		if err := check(r); err != nil {
			return err
		}
	}
	f := &form{route: t, fields: t.message.ProtoReflect().Descriptor().Fields()}
	for _, name := range slices.Sorted(mapKeys(path)) {
		f.value(f.fields.ByName(protoreflect.Name(name)), name, path[name])
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		f.refuse("query", "MALFORMED_QUERY", "name=value pairs, percent-encoded")
		return f.err
	}
	allowed := f.parameters(path, r.Method)
	for _, name := range slices.Sorted(mapKeys(query)) {
		switch {
		case !slices.Contains(allowed, name) && len(allowed) == 0:
			f.refuse(printable(name), "UNKNOWN_PARAMETER", "no query parameters here")
		case !slices.Contains(allowed, name):
			f.refuse(printable(name), "UNKNOWN_PARAMETER", "one of: "+strings.Join(allowed, ", "))
		case len(query[name]) > 1 && !f.fields.ByName(protoreflect.Name(name)).IsList():
			f.refuse(name, "REPEATED", "given once")
		default:
			for _, value := range query[name] {
				f.value(f.fields.ByName(protoreflect.Name(name)), name, value)
			}
		}
	}
	return f.err
}

// form collects the faults of one request's path and query.
type form struct {
	route  route
	fields protoreflect.FieldDescriptors
	err    *errs.Error
}

func (f *form) refuse(field, reason, allowed string) {
	if f.err == nil {
		f.err = errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields")
	}
	f.err = f.err.WithField(field, reason, allowed)
}

// parameters are the fields that the query may set: scalars, also several, and times that are not in the path;
// none where there is a body.
func (f *form) parameters(path map[string]string, method string) (names []string) {
	if method == http.MethodPost || method == http.MethodPatch {
		return nil
	}
	for i := range f.fields.Len() {
		field := f.fields.Get(i)
		if _, taken := path[string(field.Name())]; !taken && (field.Kind() != protoreflect.MessageKind || isTime(field)) {
			names = append(names, string(field.Name()))
		}
	}
	return names
}

func (f *form) value(field protoreflect.FieldDescriptor, name, s string) {
	var err error
	allowed := "an integer, from 1"
	switch field.Kind() {
	case protoreflect.Int64Kind:
		_, err = strconv.ParseInt(s, 10, 64)
	case protoreflect.Int32Kind:
		_, err = strconv.ParseInt(s, 10, 32)
		allowed = f.route.pages.Allowed(name)
	case protoreflect.MessageKind: // a time
		_, err = time.Parse(time.RFC3339, s)
		allowed = "a time as in RFC 3339: 2026-04-12T14:30:00Z"
	case protoreflect.BoolKind:
		allowed = "true or false"
		if s != "true" && s != "false" {
			err = strconv.ErrSyntax
		}
	default:
		allowed = "text in UTF-8 without the NUL character (U+0000)"
		if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			err = strconv.ErrSyntax
		}
	}
	if err != nil {
		f.refuse(name, "INVALID_VALUE", allowed)
	}
}

func isTime(field protoreflect.FieldDescriptor) bool {
	return field.Kind() == protoreflect.MessageKind && field.Message().FullName() == "google.protobuf.Timestamp"
}
