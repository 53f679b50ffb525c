package delivery

// EndpointType is the aggregate type of endpoints.
const EndpointType = "webhook_endpoint"

// What an endpoint's events say beside the phases of create, update, archive and export: how the API tells the holder
// of the shard, in the order of positions, what it has changed in the same transaction. They are events as any other,
// and may be subscribed to.
const (
	ActionEnabled  = "enabled"
	ActionDisabled = "disabled"
	// ActionRestored: it is out of the archive, and gets what comes after this event.
	ActionRestored      = "restored"
	ActionSecretRotated = "secret_rotated"
	// ActionTest is for its endpoint alone, whatever that subscribes to.
	ActionTest = "test"
	// ActionRedeliveryRequested: the payload's delivery_id is in the queue and due.
	ActionRedeliveryRequested = "redelivery_requested"
	// ActionSkipRequested: the payload's delivery_id is no longer in the queue, and its last attempt is written.
	ActionSkipRequested = "skip_requested"
	// ActionReplayRequested: the payload's replay_id runs, see store.StepReplay.
	ActionReplayRequested = "replay_requested"
	ActionReplayCancelled = "replay_cancelled"
)

// Purposes of what is sealed of an endpoint, see pkg/keyring: the owner's id is the endpoint's. Sealed are secrets in
// their text form (whsec_…, whsk_…), the value of the header Authorization, and the PEM of the client certificate's key.
const (
	PurposeSecret    = "webhook.secret"
	PurposeAuth      = "webhook.auth"
	PurposeClientKey = "webhook.client_key"
)
