package grpcapi_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	webhooksv1 "github.com/sametick/sametick/proto/gen/go/sametick/webhooks/v1"
)

// webhook_endpoint goes through all eight phases as the other sixteen types do in api-gateway, and each event's payload
// is an EventContext, by the same schema.
func TestAllPhases(t *testing.T) {
	a := start(t)
	f, err := os.Open("../../../api-gateway/internal/app/testdata/event_context.schema.json")
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	doc, err := jsonschema.UnmarshalJSON(f)
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("context.json", doc))
	schema := c.MustCompile("context.json")

	id := a.create(nil).GetEndpoint().GetId()
	_, err = a.client.UpdateEndpoint(a.as(orgA), &webhooksv1.UpdateEndpointRequest{Id: id, Description: "second"})
	require.NoError(t, err)
	_, err = a.client.ArchiveEndpoint(a.as(orgA), &webhooksv1.ArchiveEndpointRequest{Id: id})
	require.NoError(t, err)
	_, err = a.client.ExportEndpoints(a.as(orgA), &webhooksv1.ExportEndpointsRequest{})
	require.NoError(t, err)
	rows, err := a.admin.Query(t.Context(), `SELECT event_type, payload::text FROM sametick.events WHERE aggregate_type = 'webhook_endpoint' ORDER BY id`)
	require.NoError(t, err)
	defer rows.Close()
	var seen []string
	for rows.Next() {
		var r recorded
		require.NoError(t, rows.Scan(&r.Type, &r.Payload))
		var payload any
		require.NoError(t, json.Unmarshal([]byte(r.Payload), &payload))
		require.NoError(t, schema.Validate(payload), r.Type)
		seen = append(seen, types([]recorded{r})...)
	}
	require.NoError(t, rows.Err())
	require.Equal(t, []string{"pre_create", "post_create", "pre_update", "post_update", "pre_archive", "post_archive", "pre_export", "post_export"}, seen)
	require.Error(t, schema.Validate(map[string]any{"org_id": "1"}), "the control: the schema finds what is none")
}
