// Command run is the server of the Go test peers: every event of their contract, as a user of the reference would write it.
//
// Where the reference cannot do what the contract says, it does what the reference does: that is what the tests want to see.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/txix-open/etp/v4"
	"github.com/txix-open/etp/v4/msg"
	"github.com/txix-open/etp/v4/store"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "the address to listen on")
	flag.Parse()

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()

	peer := newPeer()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /ws", peer.etp)
	server := &http.Server{Handler: mux}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	fmt.Printf("LISTENING ws://%s/ws\n", listener.Addr())

	<-stop.Done()
	_ = server.Close() // no more connections; those it has upgraded are not its own any longer
	peer.etp.Shutdown()
}

type peer struct {
	etp                                    *etp.Server
	connects, disconnects, errors, unknown atomic.Int64
}

func newPeer() *peer {
	p := &peer{etp: etp.NewServer(etp.WithServerAcceptOptions(&etp.AcceptOptions{InsecureSkipVerify: true}))}
	p.etp.
		OnConnect(func(*etp.Conn) { p.connects.Add(1) }).
		OnDisconnect(func(*etp.Conn, error) { p.disconnects.Add(1) }).
		OnError(func(*etp.Conn, error) { p.errors.Add(1) }).
		OnUnknownEvent(etp.HandlerFunc(p.onUnknown))
	for name, handler := range map[string]etp.HandlerFunc{
		"echo":   p.echo,
		"id":     p.id,
		"url":    p.url,
		"join":   p.join,
		"leave":  p.leave,
		"rooms":  p.rooms,
		"shout":  p.shout,
		"others": p.others,
		"set":    p.set,
		"get":    p.get,
		"slow":   p.slow,
		"fail":   p.fail,
		"empty":  p.empty,
		"ask":    p.ask,
		"close":  p.close,
		"seen":   p.seen,
	} {
		p.etp.On(name, handler)
	}
	return p
}

func (p *peer) onUnknown(_ context.Context, _ *etp.Conn, event msg.Event) []byte {
	p.unknown.Add(1)
	return []byte("unknown:" + event.Name)
}

func (p *peer) echo(_ context.Context, _ *etp.Conn, event msg.Event) []byte {
	return event.Data
}

func (p *peer) id(_ context.Context, conn *etp.Conn, _ msg.Event) []byte {
	return []byte(conn.Id())
}

func (p *peer) url(_ context.Context, conn *etp.Conn, _ msg.Event) []byte {
	return []byte(conn.HttpRequest().URL.RequestURI())
}

func (p *peer) join(_ context.Context, conn *etp.Conn, event msg.Event) []byte {
	room := string(event.Data)
	p.etp.Rooms().Join(conn, room)
	return decimal(p.etp.Rooms().Len(room))
}

func (p *peer) leave(_ context.Context, conn *etp.Conn, event msg.Event) []byte {
	room := string(event.Data)
	p.etp.Rooms().LeaveByConnId(conn.Id(), room)
	return decimal(p.etp.Rooms().Len(room))
}

func (p *peer) rooms(_ context.Context, conn *etp.Conn, _ msg.Event) []byte {
	joined := []string{}
	for _, room := range p.etp.Rooms().Rooms() {
		if slices.Contains(p.etp.Rooms().ToBroadcast(room), conn) {
			joined = append(joined, room)
		}
	}
	slices.Sort(joined)
	return asJSON(joined)
}

func (p *peer) shout(_ context.Context, _ *etp.Conn, event msg.Event) []byte {
	return p.broadcast(event.Data, nil)
}

func (p *peer) others(_ context.Context, conn *etp.Conn, event msg.Event) []byte {
	return p.broadcast(event.Data, conn)
}

func (p *peer) broadcast(data []byte, except *etp.Conn) []byte {
	room, payload, _ := bytes.Cut(data, []byte("\n"))
	reached := 0
	for _, member := range p.etp.Rooms().ToBroadcast(string(room)) {
		if member == except {
			continue
		}
		// Not the caller's context: one that ends during a write closes the connection written to.
		if err := member.Emit(context.Background(), "shout", payload); err == nil {
			reached++
		}
	}
	return decimal(reached)
}

func (p *peer) set(_ context.Context, conn *etp.Conn, event msg.Event) []byte {
	key, value, _ := bytes.Cut(event.Data, []byte("\n"))
	conn.Data().Set(string(key), value)
	return nil
}

func (p *peer) get(_ context.Context, conn *etp.Conn, event msg.Event) []byte {
	value, err := store.Get[[]byte](conn.Data(), string(event.Data))
	if err != nil {
		return nil
	}
	return value
}

func (p *peer) slow(ctx context.Context, _ *etp.Conn, event msg.Event) []byte {
	milliseconds, _ := strconv.Atoi(string(event.Data))
	select {
	case <-time.After(time.Duration(milliseconds) * time.Millisecond):
	case <-ctx.Done():
	}
	return []byte("done")
}

// The reference always replies, so failing without a reply is not returning while there is somebody to reply to.
func (p *peer) fail(ctx context.Context, _ *etp.Conn, _ msg.Event) []byte {
	<-ctx.Done()
	return nil
}

func (p *peer) empty(context.Context, *etp.Conn, msg.Event) []byte {
	return nil
}

func (p *peer) ask(ctx context.Context, conn *etp.Conn, event msg.Event) []byte {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	answer, err := conn.EmitWithAck(ctx, "question", event.Data)
	switch {
	case err == nil:
		return answer
	case errors.Is(err, context.DeadlineExceeded):
		return []byte("error:ack_timeout")
	default:
		return []byte("error:connection_closed")
	}
}

func (p *peer) close(_ context.Context, conn *etp.Conn, _ msg.Event) []byte {
	_ = conn.Close()
	return nil
}

func (p *peer) seen(context.Context, *etp.Conn, msg.Event) []byte {
	return asJSON(map[string]int64{
		"connects":    p.connects.Load(),
		"disconnects": p.disconnects.Load(),
		"errors":      p.errors.Load(),
		"unknown":     p.unknown.Load(),
	})
}

func decimal(n int) []byte {
	return strconv.AppendInt(nil, int64(n), 10)
}

func asJSON(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings and numbers always have a JSON form
	}
	return text
}
