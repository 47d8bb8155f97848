"""A server's own acknowledged events: `ask` makes it send us `question`, and what we answer comes back as the reply."""

from rawws import binary, text


def test_the_reply_reaches_who_asked(server):
    conn = server.connect()
    conn.send_text("ask||9||why")
    assert conn.receive() == text("question||1||why")
    conn.send_text("__ack_question||1||because")
    assert conn.receive() == text("__ack_ask||9||because")


def test_ids_are_counted_from_1_on_each_connection(server):
    for _ in range(2):
        conn = server.connect()
        for id in range(1, 4):
            conn.send_text(f"ask||{id + 50}||")
            assert conn.receive().data.startswith(b"question||%d" % id)
            conn.send_text(f"__ack_question||{id}||{id}")
            assert conn.receive() == text(f"__ack_ask||{id + 50}||{id}")


def test_an_empty_reply_in_two_parts_is_read(server):
    conn = server.connect()
    conn.send_text("ask||9||why")
    conn.receive()
    conn.send_text("__ack_question||1")
    assert conn.receive() == text("__ack_ask||9")


def test_an_empty_reply_in_three_parts_is_read(server):
    conn = server.connect()
    conn.send_text("ask||9||why")
    conn.receive()
    conn.send_text("__ack_question||1||")
    assert conn.receive() == text("__ack_ask||9")


def test_a_reply_keeps_its_delimiters(server):
    conn = server.connect()
    conn.send_text("ask||9||why")
    conn.receive()
    conn.send_text("__ack_question||1||a||b||")
    assert conn.receive() == text("__ack_ask||9||a||b||")


def test_a_reply_in_a_binary_message_is_read(server):
    conn = server.connect()
    conn.send_text("ask||9||why")
    conn.receive()
    conn.send_binary("__ack_question||1||because")
    assert conn.receive() == text("__ack_ask||9||because")


def test_a_reply_that_is_no_utf8_is_read(server):
    conn = server.connect()
    conn.send_text("ask||9||why")
    conn.receive()
    conn.send_binary(b"__ack_question||1||\xff")
    assert conn.receive() == binary(b"__ack_ask||9||\xff")


def test_a_question_that_is_no_utf8_goes_out_in_a_binary_message(server):
    conn = server.connect()
    conn.send_binary(b"ask||9||\xff")
    assert conn.receive() == binary(b"question||1||\xff")


def test_replies_find_their_questions_in_any_order(server):
    conn = server.connect()
    conn.send_text(*(f"ask||{id}||{id}" for id in range(11, 21)))
    asked = [message.data.split(b"||") for message in conn.receive_all(10)]
    conn.send_text(*(b"__ack_question||%s||answer to %s" % (id, question) for _, id, question in reversed(asked)))
    replies = {message.data for message in conn.receive_all(10)}
    assert replies == {b"__ack_ask||%d||answer to %d" % (id, id) for id in range(11, 21)}


def test_a_reply_with_an_unknown_id_is_dropped(server):
    conn = server.connect()
    conn.send_text("ask||9||why")
    conn.receive()
    conn.send_text("__ack_question||2||wrong", "__ack_question||0||wrong", "__ack_question||9223372036854775807||wrong")
    conn.expect_nothing()
    conn.send_text("__ack_question||1||right")
    assert conn.receive() == text("__ack_ask||9||right")


def test_a_reply_with_a_pending_id_and_another_name_is_dropped(server):
    conn = server.connect()
    conn.send_text("ask||9||why")
    conn.receive()
    conn.send_text("__ack_echo||1||wrong", "__ack_question2||1||wrong", "__ack___ack_question||1||wrong")
    conn.expect_nothing()
    conn.send_text("__ack_question||1||right")
    assert conn.receive() == text("__ack_ask||9||right")


def test_the_first_reply_wins(server):
    conn = server.connect()
    conn.send_text("ask||9||why")
    conn.receive()
    conn.send_text("__ack_question||1||first", "__ack_question||1||second")
    assert conn.receive() == text("__ack_ask||9||first")
    conn.expect_nothing()


def test_a_malformed_reply_is_no_reply(server):
    conn = server.connect()
    conn.send_text("ask||9||why")
    conn.receive()
    conn.send_text("__ack_question||01||wrong")
    conn.expect_nothing()
    conn.send_text("__ack_question||1||right")
    assert conn.receive() == text("__ack_ask||9||right")


def test_a_question_without_a_reply_ends_with_ack_timeout(server):
    conn = server.connect()
    conn.send_text("ask||9||why")
    conn.receive()
    assert conn.receive() == text("__ack_ask||9||error:ack_timeout")


def test_a_reply_after_the_deadline_is_dropped(server):
    conn = server.connect()
    conn.send_text("ask||9||why")
    conn.receive()
    assert conn.receive() == text("__ack_ask||9||error:ack_timeout")
    conn.send_text("__ack_question||1||late")
    conn.expect_nothing()


def test_a_wrong_reply_does_not_put_off_the_deadline(server):
    conn = server.connect()
    conn.send_text("ask||9||why")
    conn.receive()
    conn.send_text("__ack_echo||1||wrong")
    assert conn.receive() == text("__ack_ask||9||error:ack_timeout")


def test_replies_that_nobody_waits_for_are_not_malformed(server):
    conn = server.connect()
    conn.send_text(*(f"__ack_echo||{id}||stray" for id in range(1, 40)))
    conn.expect_nothing()


def test_a_peer_that_leaves_with_questions_open_does_no_harm(server):
    conn = server.connect()
    conn.send_text(*(f"ask||{id}||" for id in range(1, 50)))
    conn.receive_all(49)
    conn.abort()
    server.connect().fence()


def test_more_questions_than_handlers_are_all_answered(server):
    conn = server.connect()
    conn.send_text(*(f"ask||{id}||{id}" for id in range(1, 301)))
    answered = set()
    while len(answered) < 300:
        name, id, payload = conn.receive().data.split(b"||")
        if name == b"question":
            conn.send_text(b"__ack_question||%s||%s" % (id, payload))
        else:
            assert (name, id) == (b"__ack_ask", payload)
            answered.add(id)
