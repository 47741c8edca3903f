/* Every call of the service, as a well-behaved host makes it. The argument is the name of a case. */

#include "cases.h"

static void lifecycle(void) {
    struct world world;
    start(&world, NULL, NULL);
    TurnwiseResult result = {.size = sizeof result};
    OK(turnwise_create_session(world.service, TURNWISE_TEXT("hello"),
                               TURNWISE_TEXT("{\"session\":{\"model\":\"small\",\"labels\":{\"user\":\"ada\"}}}"), &result, NULL));
    CHECK(strcmp(result.text, "1: hello") == 0 && result.turn == 1 && result.stop_reason == TURNWISE_STOP_END_TURN);
    OK(turnwise_string_free(result.text));
    char id[40];
    memcpy(id, result.session_id, sizeof id);
    expect(&world, id, "again", "2: again");

    char *text = NULL;
    size_t len = 0;
    OK(turnwise_read(world.service, TURNWISE_TEXT(id), &text, &len, NULL));
    CHECK(strlen(text) == len && strstr(text, "\"message_count\":4") != NULL && strstr(text, "\"model\":\"small\"") != NULL);
    OK(turnwise_string_free(text));
    OK(turnwise_list(world.service, TURNWISE_TEXT("{\"labels\":{\"user\":\"ada\"}}"), &text, NULL, NULL));
    CHECK(strstr(text, id) != NULL);
    OK(turnwise_string_free(text));
    OK(turnwise_set_labels(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("{\"user\":\"bob\"}"), NULL));
    OK(turnwise_list(world.service, TURNWISE_TEXT("{\"labels\":{\"user\":\"ada\"}}"), &text, NULL, NULL));
    CHECK(strcmp(text, "[]") == 0);
    OK(turnwise_string_free(text));
    uint64_t boundary = 0;
    OK(turnwise_history(world.service, TURNWISE_TEXT(id), &text, NULL, &boundary, NULL));
    CHECK(strstr(text, "again") != NULL && boundary > 0);
    OK(turnwise_string_free(text));
    OK(turnwise_wait_idle(world.service, TURNWISE_TEXT(id), -1, NULL));
    OK(turnwise_service_stats(world.service, &text, NULL, NULL));
    CHECK(strstr(text, "\"turns_completed\":2") != NULL);
    OK(turnwise_string_free(text));
    CODE(TURNWISE_SESSION_NOT_FAULTED, turnwise_restart(world.service, TURNWISE_TEXT(id), -1, NULL));
    CODE(TURNWISE_UNSUPPORTED, turnwise_resume(world.service, TURNWISE_TEXT(id), NULL));

    OK(turnwise_archive_wait(world.service, TURNWISE_TEXT(id), -1, NULL));
    CODE(TURNWISE_SESSION_NOT_FOUND, turnwise_read(world.service, TURNWISE_TEXT(id), &text, NULL, NULL));
    CHECK(gate_value(&world.dropped) == 1);
    finish(&world);
}

/* An exported history is resumed, and the agent sees it. */
static void export_and_resume(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    expect(&world, id, "say one", "one");
    char *history = NULL;
    size_t len = 0;
    OK(turnwise_export_session(world.service, TURNWISE_TEXT(id), -1, &history, &len, NULL));
    char *taken = NULL;
    OK(turnwise_take_session(world.service, TURNWISE_TEXT(id), -1, &taken, NULL, NULL));
    CHECK(strcmp(history, taken) == 0);
    OK(turnwise_string_free(taken));
    char spec[4096];
    CHECK(snprintf(spec, sizeof spec, "{\"resume\":%s}", history) < (int)sizeof spec);
    OK(turnwise_string_free(history));
    char again[40];
    OK(turnwise_open_session(world.service, TURNWISE_TEXT(spec), again, NULL));
    CHECK(strcmp(id, again) == 0);
    TurnwiseResult result = {.size = sizeof result};
    OK(turnwise_start_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("history"), NULL, 0, &result, NULL));
    CHECK(strstr(result.text, "say one") != NULL && strstr(result.text, "\"one\"") != NULL);
    OK(turnwise_string_free(result.text));
    finish(&world);
}

static void store_by_path(const char *folder) {
    char path[512];
    CHECK(snprintf(path, sizeof path, "%s/sessions.redb", folder) < (int)sizeof path);
    struct world world;
    char id[40];
    start(&world, "{\"max_sessions\":4}", path);
    open_session(&world, id);
    expect(&world, id, "say kept", "kept");
    OK(turnwise_unload(world.service, TURNWISE_TEXT(id), -1, NULL));
    expect(&world, id, "say resumed", "resumed");
    finish(&world);

    start(&world, NULL, path);
    OK(turnwise_resume(world.service, TURNWISE_TEXT(id), NULL));
    char *text = NULL;
    OK(turnwise_history(world.service, TURNWISE_TEXT(id), &text, NULL, NULL, NULL));
    CHECK(strstr(text, "kept") != NULL && strstr(text, "resumed") != NULL);
    OK(turnwise_string_free(text));
    OK(turnwise_archive(world.service, TURNWISE_TEXT(id), TURNWISE_DRAIN, NULL));
    OK(turnwise_list_archived(world.service, NULL, 0, &text, NULL, NULL));
    CHECK(strstr(text, id) != NULL);
    OK(turnwise_string_free(text));
    OK(turnwise_delete(world.service, TURNWISE_TEXT(id), NULL));
    CODE(TURNWISE_SESSION_NOT_FOUND, turnwise_history(world.service, TURNWISE_TEXT(id), &text, NULL, NULL, NULL));
    finish(&world);
}

static void stream(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    TurnwiseHandle turn = 0;
    OK(turnwise_stream_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("emit 3"), NULL, 0, &turn, NULL));
    const char *expected[] = {"run_started", "text_delta", "text_delta", "text_delta", "run_completed"};
    TurnwiseEvent event = {.size = sizeof event};
    for (size_t index = 0; index < 5; index++) {
        OK(turnwise_next_event(turn, -1, &event, NULL));
        CHECK(event.kind == TURNWISE_EVENT && strcmp(event.session_id, id) == 0 && event.turn == 1);
        CHECK(strlen(event.json) == event.json_len && strstr(event.json, expected[index]) != NULL);
        OK(turnwise_string_free(event.json));
    }
    CODE(TURNWISE_END, turnwise_next_event(turn, -1, &event, NULL));
    CODE(TURNWISE_END, turnwise_next_event(turn, 0, &event, NULL));
    TurnwiseResult result = {.size = sizeof result};
    OK(turnwise_turn_poll(turn, &result, NULL));
    CHECK(strcmp(result.text, "emitted") == 0);
    OK(turnwise_string_free(result.text));
    /* A second read of the result gets a text of its own. */
    OK(turnwise_turn_wait(turn, -1, &result, NULL));
    OK(turnwise_string_free(result.text));
    OK(turnwise_close(turn, NULL));

    OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("say plain"), NULL, 0, &turn, NULL));
    OK(turnwise_turn_wait(turn, -1, NULL, NULL));
    CODE(TURNWISE_WRONG_KIND, turnwise_next_event(turn, 0, &event, NULL));
    OK(turnwise_close(turn, NULL));
    finish(&world);
}

/* A stream holds 256 events. The turn waits for its reader, and no event is lost. */
static void back_pressure(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    TurnwiseHandle turn = 0;
    OK(turnwise_stream_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("emit 2000"), NULL, 0, &turn, NULL));
    TurnwiseEvent event = {.size = sizeof event};
    int events = 0;
    int32_t code;
    while ((code = turnwise_next_event(turn, -1, &event, NULL)) == TURNWISE_OK) {
        events++;
        OK(turnwise_string_free(event.json));
    }
    CODE(TURNWISE_END, code);
    CHECK(events == 2002);
    OK(turnwise_close(turn, NULL));

    /* A closed stream is no obstacle to its turn, although its queue is full. */
    OK(turnwise_stream_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("emit 2000"), NULL, 0, &turn, NULL));
    OK(turnwise_close(turn, NULL));
    OK(turnwise_wait_idle(world.service, TURNWISE_TEXT(id), -1, NULL));

    /* A subscription with little room loses the oldest events, and says how many. */
    TurnwiseHandle subscription = 0;
    OK(turnwise_subscribe(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("{\"capacity\":10}"), &subscription, NULL));
    expect(&world, id, "emit 100", "emitted");
    uint64_t dropped = 0;
    OK(turnwise_subscription_dropped(subscription, &dropped, NULL));
    CHECK(dropped == 92);
    for (int index = 0; index < 10; index++) {
        OK(turnwise_next_event(subscription, 0, &event, NULL));
        CHECK(event.seq > 0);
        OK(turnwise_string_free(event.json));
    }
    CODE(TURNWISE_EMPTY, turnwise_next_event(subscription, 0, &event, NULL));
    OK(turnwise_close(subscription, NULL));
    finish(&world);
}

static void interrupt(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    TurnwiseError error = {.size = sizeof error};
    CODE(TURNWISE_SESSION_NOT_RUNNING, turnwise_interrupt(world.service, TURNWISE_TEXT(id), NULL));
    for (int way = 0; way < 3; way++) {
        TurnwiseHandle turn = 0;
        OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("sleep"), NULL, 0, &turn, NULL));
        gate_wait(&world.entered, way + 1);
        uint64_t number = 0;
        char session[40];
        OK(turnwise_turn_ids(turn, session, &number, NULL));
        CHECK(strcmp(session, id) == 0 && number == (uint64_t)way + 1);
        CODE(TURNWISE_EMPTY, turnwise_turn_poll(turn, NULL, NULL));
        if (way == 0) {
            OK(turnwise_interrupt(world.service, TURNWISE_TEXT(id), NULL));
        } else if (way == 1) {
            OK(turnwise_turn_interrupt(turn, NULL));
        } else {
            OK(turnwise_interrupt_turn(world.service, TURNWISE_TEXT(id), number, NULL));
        }
        CODE(TURNWISE_AGENT_ERROR, turnwise_turn_wait(turn, -1, NULL, &error));
        CHECK(error.cancel_reason == TURNWISE_CANCEL_INTERRUPTED && error.message != NULL);
        OK(turnwise_string_free(error.message));
        OK(turnwise_close(turn, NULL));
    }
    /* What blocks outside of the library is aborted by on_cancel. */
    TurnwiseHandle blocked = 0;
    OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("abort"), NULL, 0, &blocked, NULL));
    gate_wait(&world.entered, 4);
    OK(turnwise_turn_interrupt(blocked, NULL));
    CODE(TURNWISE_AGENT_ERROR, turnwise_turn_wait(blocked, -1, NULL, NULL));
    OK(turnwise_close(blocked, NULL));
    /* A timeout of the request. */
    CODE(TURNWISE_AGENT_ERROR, turnwise_start_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("sleep"),
                                                   TURNWISE_TEXT("{\"timeout_ms\":1}"), NULL, &error));
    CHECK(error.cancel_reason == TURNWISE_CANCEL_DEADLINE);
    OK(turnwise_string_free(error.message));
    /* A turn that waits in the queue is withdrawn. */
    TurnwiseHandle first = 0, queued = 0;
    OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("sleep"), NULL, 0, &first, NULL));
    CODE(TURNWISE_SESSION_BUSY, turnwise_start_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("x"), NULL, 0, NULL, NULL));
    OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("say queued"),
                           TURNWISE_TEXT("{\"when_busy\":\"queue\"}"), &queued, NULL));
    OK(turnwise_turn_interrupt(first, NULL));
    OK(turnwise_turn_wait(queued, -1, NULL, NULL));
    OK(turnwise_close(first, NULL));
    OK(turnwise_close(queued, NULL));
    finish(&world);
}

static void *respond_to(void *argument) {
    struct world *world = argument;
    TurnwiseEvent event = {.size = sizeof event};
    const char *answers[] = {"maybe", "yes", NULL};
    for (int asked = 0; asked < 2;) {
        OK(turnwise_next_event(world->service, -1, &event, NULL));
        char *found = event.json == NULL ? NULL : strstr(event.json, "\"input_requested\"");
        if (found != NULL) {
            uint64_t input = strtoull(strstr(event.json, "\"input_id\":") + 11, NULL, 10);
            if (asked == 0) {
                CODE(TURNWISE_INVALID_ANSWER, turnwise_respond(world->service, TURNWISE_TEXT(event.session_id), input, TURNWISE_TEXT(answers[0]), NULL));
                char *pending = NULL;
                OK(turnwise_pending_inputs(world->service, TURNWISE_TEXT(event.session_id), &pending, NULL, NULL));
                CHECK(strstr(pending, "May I?") != NULL);
                OK(turnwise_string_free(pending));
                OK(turnwise_respond(world->service, TURNWISE_TEXT(event.session_id), input, TURNWISE_TEXT(answers[1]), NULL));
                CODE(TURNWISE_INPUT_NOT_PENDING, turnwise_respond(world->service, TURNWISE_TEXT(event.session_id), input, TURNWISE_TEXT(answers[1]), NULL));
            } else {
                OK(turnwise_decline(world->service, TURNWISE_TEXT(event.session_id), input, TURNWISE_TEXT("not today"), NULL));
            }
            asked++;
        }
        OK(turnwise_string_free(event.json));
    }
    return NULL;
}

/* The input requests of a turn are answered by the thread that reads the service's queue. */
static void respond(void) {
    struct world world;
    start(&world, "{\"events\":{}}", NULL);
    char id[40];
    open_session(&world, id);
    pthread_t reader;
    CHECK(pthread_create(&reader, NULL, respond_to, &world) == 0);
    expect(&world, id, "ask", "yes");
    expect(&world, id, "ask", "declined");
    CHECK(pthread_join(reader, NULL) == 0);
    finish(&world);
}

static void messages(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    CODE(TURNWISE_SESSION_NOT_RUNNING, turnwise_steer(world.service, TURNWISE_TEXT(id), 0, TURNWISE_TEXT("x"), NULL, NULL));
    TurnwiseHandle turn = 0, interaction = 0;
    OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("message"), NULL, 0, &turn, NULL));
    OK(turnwise_steer(world.service, TURNWISE_TEXT(id), 1, TURNWISE_TEXT("go north"), &interaction, NULL));
    TurnwiseEvent event = {.size = sizeof event};
    OK(turnwise_next_event(interaction, -1, &event, NULL));
    CHECK(strstr(event.json, "interaction_complete") != NULL);
    OK(turnwise_string_free(event.json));
    CODE(TURNWISE_END, turnwise_next_event(interaction, -1, &event, NULL));
    TurnwiseResult result = {.size = sizeof result};
    OK(turnwise_turn_wait(turn, -1, &result, NULL));
    CHECK(strstr(result.text, "go north") != NULL);
    OK(turnwise_string_free(result.text));
    OK(turnwise_close(interaction, NULL));
    OK(turnwise_close(turn, NULL));

    /* Host mode: messages are interactions, and a dismissal ends it. */
    OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("say hosting"), TURNWISE_TEXT("{\"host_mode\":true}"), &turn, NULL));
    OK(turnwise_inject(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("say first"), TURNWISE_TEXT("webhook"), &interaction, NULL));
    OK(turnwise_inject(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("say last"), TURNWISE_TEXT("alarm"), NULL, NULL));
    OK(turnwise_dismiss(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("alarm"), NULL));
    OK(turnwise_turn_wait(turn, -1, &result, NULL));
    CHECK(strcmp(result.text, "last") == 0);
    OK(turnwise_string_free(result.text));
    int32_t code;
    bool is_complete = false;
    while ((code = turnwise_next_event(interaction, -1, &event, NULL)) == TURNWISE_OK) {
        is_complete |= strstr(event.json, "interaction_complete") != NULL;
        OK(turnwise_string_free(event.json));
    }
    CHECK(code == TURNWISE_END && is_complete);
    OK(turnwise_close(interaction, NULL));
    OK(turnwise_close(turn, NULL));
    finish(&world);
}

/* What an agent says, and what its host gets. */
static void agents(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    TurnwiseError error = {.size = sizeof error};
    CODE(TURNWISE_AGENT_ERROR, turnwise_start_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("fail it is blunt"), NULL, 0, NULL, &error));
    CHECK(strstr(error.message, "tool 'saw': it is blunt") != NULL && error.cancel_reason == 0);
    OK(turnwise_string_free(error.message));
    CODE(TURNWISE_AGENT_ERROR, turnwise_start_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("code"), NULL, 0, NULL, &error));
    CHECK(strstr(error.message, "4242") != NULL);
    OK(turnwise_string_free(error.message));
    expect(&world, id, "mask", "blocked");
    expect(&world, id, "wrong", "refused");
    expect(&world, id, "shutdown", "reentrant");

    /* A text with NUL bytes comes back whole. */
    TurnwiseResult result = {.size = sizeof result};
    OK(turnwise_start_turn(world.service, TURNWISE_TEXT(id), "bytes\0and\0more", 14, NULL, 0, &result, NULL));
    CHECK(result.text_len == 14 && memcmp(result.text, "bytes\0and\0more", 15) == 0);
    OK(turnwise_string_free(result.text));

    TurnwiseHandle turn = 0;
    OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("publish"), NULL, 0, &turn, NULL));
    gate_wait(&world.entered, 1);
    char *view = NULL;
    OK(turnwise_read(world.service, TURNWISE_TEXT(id), &view, NULL, NULL));
    CHECK(strstr(view, "\"message_count\":77") != NULL && strstr(view, "soon") != NULL);
    OK(turnwise_string_free(view));
    gate_set(&world.released, 1);
    OK(turnwise_turn_wait(turn, -1, NULL, NULL));
    OK(turnwise_close(turn, NULL));

    char unbuilt[40];
    CODE(TURNWISE_SESSION_BUILD_FAILED, turnwise_open_session(world.service, TURNWISE_TEXT("{\"model\":\"no-build\"}"), unbuilt, &error));
    CHECK(strstr(error.message, "this model is not built") != NULL);
    OK(turnwise_string_free(error.message));

    /* An agent uses another session, and may not wait for itself. */
    open_session(&world, world.other);
    expect(&world, id, "other say from afar", "from afar");
    TurnwiseResult own = {.size = sizeof own};
    OK(turnwise_start_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("self"), NULL, 0, &own, NULL));
    CHECK(strcmp(own.text, "SESSION_BUSY") == 0 || strcmp(own.text, "SESSION_REENTRANT") == 0);
    OK(turnwise_string_free(own.text));
    finish(&world);
}

static const struct test_case CASES[] = {
    {"lifecycle", lifecycle, NULL}, {"export_and_resume", export_and_resume, NULL}, {"store_by_path", NULL, store_by_path},
    {"stream", stream, NULL}, {"back_pressure", back_pressure, NULL}, {"interrupt", interrupt, NULL},
    {"respond", respond, NULL}, {"messages", messages, NULL}, {"agents", agents, NULL},
};

int main(int argc, char **argv) { return run_cases(CASES, sizeof CASES / sizeof *CASES, argc, argv); }
