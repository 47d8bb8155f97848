module etp-peers

go 1.23

require (
	github.com/coder/websocket v1.8.12
	github.com/txix-open/etp/v4 v4.0.1
)
