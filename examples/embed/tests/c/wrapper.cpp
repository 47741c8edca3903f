// A host in C++: handles and texts with owners, an agent with a virtual function, and exceptions that stay on their side.

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "turnwise.h"

namespace {

void check(bool condition, const char *what) {
    if (!condition) {
        std::fprintf(stderr, "not true: %s\n", what);
        std::abort();
    }
}

#define CHECK(condition) check((condition), #condition)

struct Failure : std::runtime_error {
    Failure(std::int32_t failed, const std::string &message, std::int32_t reason)
        : std::runtime_error(message), code(failed), cancel_reason(reason) {}
    std::int32_t code;
    std::int32_t cancel_reason;
};

// Takes a text over.
std::string taken(char *text, std::size_t length) {
    std::string copy(text == nullptr ? "" : text, length);
    CHECK(turnwise_string_free(text) == TURNWISE_OK);
    return copy;
}

template <typename Call>
std::int32_t call(Call &&function) {
    TurnwiseError error{};
    error.size = sizeof error;
    const std::int32_t code = function(&error);
    if (code == TURNWISE_OK || code == TURNWISE_EMPTY || code == TURNWISE_END) {
        return code;
    }
    throw Failure(code, taken(error.message, error.message_len), error.cancel_reason);
}

class Handle {
public:
    Handle() = default;
    explicit Handle(TurnwiseHandle number) : number_(number) {}
    Handle(Handle &&other) noexcept : number_(std::exchange(other.number_, 0)) {}
    Handle &operator=(Handle &&other) noexcept {
        std::swap(number_, other.number_);
        return *this;
    }
    ~Handle() {
        if (number_ != 0) {
            turnwise_close(number_, nullptr);
        }
    }
    TurnwiseHandle get() const { return number_; }

private:
    TurnwiseHandle number_ = 0;
};

class Context {
public:
    explicit Context(TurnwiseHandle handle) : handle_(handle) {}
    void emit(const std::string &text) const {
        call([&](TurnwiseError *error) { return turnwise_context_emit_text(handle_, text.data(), text.size(), error); });
    }
    void sleep(std::int64_t ms) const {
        call([&](TurnwiseError *error) { return turnwise_context_sleep(handle_, ms, error); });
    }

private:
    TurnwiseHandle handle_;
};

class Agent {
public:
    virtual ~Agent() = default;
    virtual std::string run(const std::string &prompt, const Context &context) = 0;
};

class Echo final : public Agent {
public:
    explicit Echo(std::atomic<int> &live) : live_(live) { ++live_; }
    ~Echo() override { --live_; }
    std::string run(const std::string &prompt, const Context &context) override {
        if (prompt == "throw") {
            throw std::runtime_error("thrown in an agent");
        }
        if (prompt == "sleep") {
            context.sleep(-1);
        }
        seen_.push_back(prompt);
        context.emit(prompt);
        return std::to_string(seen_.size()) + " " + prompt;
    }

private:
    std::atomic<int> &live_;
    std::vector<std::string> seen_;
};

extern "C" std::int32_t build(void *context, TurnwiseHandle, const char *, std::size_t, void **state) {
    *state = new Echo(*static_cast<std::atomic<int> *>(context));
    return TURNWISE_OK;
}

// No exception leaves this function.
extern "C" std::int32_t run_turn(void *, void *state, TurnwiseHandle ctx, const char *prompt, std::size_t length) {
    try {
        const std::string answer = static_cast<Agent *>(state)->run(std::string(prompt, length), Context(ctx));
        return turnwise_context_answer(ctx, answer.data(), answer.size(), nullptr, 0, nullptr);
    } catch (const Failure &failure) {
        return failure.code;
    } catch (const std::exception &error) {
        const std::string text = error.what();
        turnwise_context_fail(ctx, text.data(), text.size(), nullptr, 0, nullptr);
        return TURNWISE_OTHER_ERROR;
    }
}

extern "C" void drop_state(void *, void *state) { delete static_cast<Agent *>(state); }

class Service {
public:
    explicit Service(std::atomic<int> &live) {
        TurnwiseAgent agent{};
        agent.size = sizeof agent;
        agent.context = &live;
        agent.build = build;
        agent.run_turn = run_turn;
        agent.drop_state = drop_state;
        TurnwiseServiceOptions options{};
        options.size = sizeof options;
        options.agent = &agent;
        TurnwiseHandle number = 0;
        call([&](TurnwiseError *error) { return turnwise_service_new(&options, &number, error); });
        handle_ = Handle(number);
    }
    ~Service() { turnwise_service_shutdown(handle_.get(), TURNWISE_INTERRUPT, -1, nullptr, nullptr, nullptr); }
    std::string open() const {
        char id[40];
        call([&](TurnwiseError *error) { return turnwise_open_session(handle_.get(), nullptr, 0, id, error); });
        return id;
    }
    std::string ask(const std::string &id, const std::string &prompt) const {
        TurnwiseResult result{};
        result.size = sizeof result;
        call([&](TurnwiseError *error) {
            return turnwise_start_turn(handle_.get(), id.data(), id.size(), prompt.data(), prompt.size(), nullptr, 0, &result, error);
        });
        return taken(result.text, result.text_len);
    }
    Handle stream(const std::string &id, const std::string &prompt) const {
        TurnwiseHandle turn = 0;
        call([&](TurnwiseError *error) {
            return turnwise_stream_turn(handle_.get(), id.data(), id.size(), prompt.data(), prompt.size(), nullptr, 0, &turn, error);
        });
        return Handle(turn);
    }

private:
    Handle handle_;
};

std::int32_t code_of(const Service &service, const std::string &id, const std::string &prompt, std::string *message) {
    try {
        service.ask(id, prompt);
        return TURNWISE_OK;
    } catch (const Failure &failure) {
        *message = failure.what();
        return failure.code;
    }
}

}  // namespace

int main() {
    std::atomic<int> live{0};
    {
        const Service service(live);
        const std::string id = service.open();
        CHECK(service.ask(id, "hello") == "1 hello");
        std::string message;
        CHECK(code_of(service, id, "throw", &message) == TURNWISE_AGENT_ERROR);
        CHECK(message.find("thrown in an agent") != std::string::npos);
        CHECK(code_of(service, "x", "y", &message) == TURNWISE_INVALID_ID);
        CHECK(service.ask(id, "again") == "2 again");

        const Handle turn = service.stream(id, "sleep");
        std::thread stopper([&] { turnwise_turn_interrupt(turn.get(), nullptr); });
        try {
            call([&](TurnwiseError *error) { return turnwise_turn_wait(turn.get(), -1, nullptr, error); });
            CHECK(false);
        } catch (const Failure &failure) {
            CHECK(failure.cancel_reason == TURNWISE_CANCEL_INTERRUPTED);
        }
        stopper.join();
        const Handle last = service.stream(id, "events");
        std::string pieces;
        TurnwiseEvent event{};
        event.size = sizeof event;
        while (call([&](TurnwiseError *error) { return turnwise_next_event(last.get(), -1, &event, error); }) == TURNWISE_OK) {
            pieces += taken(event.json, event.json_len);
        }
        CHECK(pieces.find("\"delta\":\"events\"") != std::string::npos);
        CHECK(live == 1);
    }
    CHECK(live == 0);
    std::puts("wrapper");
    return 0;
}
