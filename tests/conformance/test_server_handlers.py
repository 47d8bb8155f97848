"""When a server's handlers run: they start in the order of arrival and run concurrently, up to the limit."""

from harness import event, in_thread
from rawws import PONG, text


def test_a_slow_handler_does_not_hold_up_another_event(server):
    conn = server.connect()
    conn.send_text("slow||1||500", "echo||2||x")
    assert conn.receive() == text("__ack_echo||2||x")
    assert conn.receive() == text("__ack_slow||1||done")


def test_a_slow_handler_does_not_hold_up_another_connection(server):
    first, second = server.connect(), server.connect()
    first.send_text("slow||1||500")
    first.fence()
    assert second.call("echo", "x") == b"x"
    first.expect_nothing()
    assert first.receive() == text("__ack_slow||1||done")


def test_slow_handlers_end_in_their_own_time(server):
    conn = server.connect()
    conn.send_text("slow||1||600", "slow||2||400", "slow||3||200")
    assert [message.data for message in conn.receive_all(3)] == [
        b"__ack_slow||3||done",
        b"__ack_slow||2||done",
        b"__ack_slow||1||done",
    ]


def test_replies_of_handlers_that_do_not_wait_come_in_the_order_of_arrival(server):
    conn = server.connect()
    for start in range(1, 20_001, 2_000):
        ids = range(start, start + 2_000)
        conn.send_text(*(f"echo||{id}||{id}" for id in ids))
        assert conn.receive_all(2_000) == [text(f"__ack_echo||{id}||{id}") for id in ids]


def test_an_event_sees_what_the_one_before_it_has_done(server):
    conn = server.connect()
    count = 2_000
    for value in range(count):
        conn.send_text(f"set||0||key\n{value}", f"get||{value + 1}||key")
    assert conn.receive_all(count) == [text(f"__ack_get||{value + 1}||{value}") for value in range(count)]


def test_10_000_broadcasts_arrive_in_order(server):
    caller, member = server.connect(), server.connect()
    member.join("room")
    caller.send_text(*(f"shout||0||room\n{number}" for number in range(10_000)))
    assert member.receive_all(10_000) == [text(f"shout||0||{number}") for number in range(10_000)]
    member.expect_nothing()


def test_10_000_echoes_sent_at_once_are_all_answered(server):
    conn = server.connect()
    conn.send_text(*(f"echo||{id}||{id}" for id in range(1, 10_001)))
    assert sorted(conn.receive_all(10_000)) == sorted(text(f"__ack_echo||{id}||{id}") for id in range(1, 10_001))


def test_20_mib_of_echoes_pass_while_one_reads(server):
    conn = server.connect()
    payload = b"x" * 4096
    sending = in_thread(lambda: [conn.send_text(event("echo", id, payload)) for id in range(1, 5_001)])
    got = {conn.receive().data for _ in range(5_000)}
    sending.join()
    assert got == {event("__ack_echo", id, payload) for id in range(1, 5_001)}


def test_a_peer_that_leaves_while_its_handler_runs_does_no_harm(server):
    leavers = [server.connect() for _ in range(10)]
    for conn in leavers:
        conn.send_text("slow||1||300", "slow||0||300", "fail||2||")
        conn.fence()
    for number, conn in enumerate(leavers):
        (conn.abort, conn.end)[number % 2]()
    server.settle()
    assert server.connect().call("slow", "400") == b"done"


def test_255_slow_handlers_leave_room_for_one_more(server):
    conn = server.connect()
    conn.send_text(*(event("slow", id, "1000") for id in range(1, 256)), "echo||999||x")
    assert conn.receive() == text("__ack_echo||999||x")
    assert {message.data for message in conn.receive_all(255)} == {b"__ack_slow||%d||done" % id for id in range(1, 256)}


def test_no_more_than_256_handlers_of_a_connection_run_at_once(server):
    conn = server.connect()
    conn.send_text(*(event("slow", id, "1000") for id in range(1, 257)), "echo||999||x")
    first = conn.receive()
    assert first.data.startswith(b"__ack_slow||"), "the event beyond the limit did not wait"
    rest = {message.data for message in conn.receive_all(256)}
    assert rest | {first.data} == {b"__ack_slow||%d||done" % id for id in range(1, 257)} | {b"__ack_echo||999||x"}


def test_replies_and_pings_are_read_while_all_256_handlers_are_busy(server):
    conn = server.connect()
    conn.send_text(*(event("slow", id, "3000") for id in range(1, 256)), "ask||900||why", "echo||999||x")
    early = []  # An echo that does not wait its turn is another case.
    while (got := conn.receive()) != text("question||1||why"):
        early.append(got)
    conn.ping(b"now")
    while (frame := conn.receive_frame()).opcode != PONG:
        early.append(text(frame.payload))
    assert frame.payload == b"now"
    conn.send_text("__ack_question||1||because")
    # The answered question makes room for the event that waits.
    got = early + conn.receive_all(2 - len(early))
    assert sorted(got) == [text("__ack_ask||900||because"), text("__ack_echo||999||x")]
    assert {message.data for message in conn.receive_all(255)} == {b"__ack_slow||%d||done" % id for id in range(1, 256)}


def test_another_connection_is_served_while_all_256_handlers_of_one_are_busy(server):
    busy, other = server.connect(), server.connect()
    busy.send_text(*(event("slow", id, "1500") for id in range(1, 300)))
    assert other.call("echo", "x") == b"x"
    assert len(busy.receive_all(299)) == 299


def test_events_that_wait_for_a_handler_are_handled_in_order(server):
    conn = server.connect()
    conn.send_text(*(event("slow", id, "500") for id in range(1, 257)))
    conn.send_text(*(event("echo", id) for id in range(1_000, 11_000)))
    messages = [message.data for message in conn.receive_all(10_256)]
    assert [data for data in messages if b"echo" in data] == [b"__ack_echo||%d" % id for id in range(1_000, 11_000)]


def test_more_than_1_mib_of_waiting_events_waits_on_the_wire_and_is_handled(server):
    conn = server.connect()
    payload = b"x" * 10_000
    conn.send_text(*(event("slow", id, "500") for id in range(1, 257)))
    sending = in_thread(lambda: [conn.send_text(event("echo", 1000 + id, payload)) for id in range(1_000)])
    got = {conn.receive().data for _ in range(1_256)}
    sending.join()
    assert got == {event("__ack_slow", id, "done") for id in range(1, 257)} | {
        event("__ack_echo", 1000 + id, payload) for id in range(1_000)
    }
