-- Comes behind the first line of every script but `meet`.
--
-- KEYS[1] is the namespace with a colon, ARGV[1] its id. Numbers that may grow for ever (turns, epochs, counts of
-- answers) are changed by HINCRBY and INCR and passed on as strings: a number of Lua is a double.
local ns = KEYS[1]
if redis.call('HGET', ns .. 'meta', 'id') ~= ARGV[1] then
    return { 'replaced' }
end

-- How long the verdict of a request is kept, in milliseconds. A client repeats a request for half of that.
local VERDICT_TTL = 600000
-- The longest copy of a turn in an entry of a worker's stream, in bytes. A longer one is read from the session's hash.
local LONGEST_COPY = 4096
-- How many revisions a record remembers, so that a repeated save is known after other saves.
local PAST_REVISIONS = 8

local function session_key(id)
    return ns .. 's:' .. id
end

local function words(text)
    local list = {}
    for word in string.gmatch(text or '', '%S+') do
        list[#list + 1] = word
    end
    return list
end

local function position(list, word)
    for index, other in ipairs(list) do
        if other == word then
            return index
        end
    end
    return nil
end

-- Whether one decimal number is below another.
local function below(one, other)
    if #one ~= #other then
        return #one < #other
    end
    return one < other
end

-- The capacity, the limit of queued turns and the state of a worker, or nil if its lease is gone.
local function lease_of(wid)
    if not wid or wid == '' then
        return nil
    end
    local value = words(redis.call('GET', ns .. 'w:' .. wid .. ':l') or '')
    return tonumber(value[1]), tonumber(value[2]), value[3]
end

-- Tells a worker that there is something to do for a session. What that is stands in the session's hash. The other
-- arguments are a copy of it, which spares the worker a look.
local function wake(wid, id, ...)
    redis.call('XADD', ns .. 'w:' .. wid .. ':q', 'NOMKSTREAM', 'MAXLEN', '~', '10000', '*', 'id', id, ...)
end

-- Sends a message to each of these clients that still has a stream.
local function tell(cids, ...)
    for _, cid in ipairs(cids) do
        redis.call('XADD', ns .. 'c:' .. cid, 'NOMKSTREAM', '*', ...)
    end
end

-- Keeps what a request has led to, for a client that repeats it.
local function note_request(request, ...)
    local key = ns .. 'req:' .. request
    redis.call('HSET', key, ...)
    redis.call('PEXPIRE', key, VERDICT_TTL)
end

-- Ends the feeds of a session: no events follow.
local function end_feeds(id)
    local key = session_key(id)
    local found = redis.call('HMGET', key, 'feeds', 'epoch')
    for _, feed in ipairs(words(found[1])) do
        tell({ redis.call('HGET', key, 'f:' .. feed .. ':cid') }, 'events', feed, 'epoch', found[2] or '0', 'first', '0',
            'count', '0', 'last', '1', 'body', '[]')
        redis.call('HDEL', key, 'f:' .. feed, 'f:' .. feed .. ':cid')
    end
    redis.call('HDEL', key, 'feeds')
end

-- Tells the clients of a session's feeds that events of this epoch may be missing. No worker numbers so many events.
local function tell_gap(id)
    local key = session_key(id)
    local found = redis.call('HMGET', key, 'feeds', 'epoch')
    for _, feed in ipairs(words(found[1])) do
        tell({ redis.call('HGET', key, 'f:' .. feed .. ':cid') }, 'events', feed, 'epoch', found[2], 'first',
            '9007199254740992', 'count', '0', 'last', 'gap', 'body', '[]')
    end
end

-- Removes a session that was never built, or is deleted.
local function remove(id)
    end_feeds(id)
    -- A session that is made again under the id counts on from here, so that no client takes its count for a lost one.
    local answers, last = redis.call('HGET', session_key(id), 'answers') or '0', redis.call('GET', ns .. 'answers') or '0'
    if below(last, answers) then
        redis.call('SET', ns .. 'answers', answers)
    end
    redis.call('UNLINK', session_key(id), session_key(id) .. ':h')
    redis.call('ZREM', ns .. 'idx', id)
end

-- Ends a turn that is in flight, with its only verdict: takes it out of the list, keeps the verdict for its request, and
-- tells its clients. Returns how many turns of the session have been answered, and those that are left in flight.
local function answer(id, turn, kind, body)
    local key, field = session_key(id), 't:' .. turn .. ':'
    local found = redis.call('HMGET', key, 'wid', 'flight', field .. 'req', field .. 'cid', field .. 'in', field .. 'msg')
    local wid, flight, request = found[1], words(found[2]), found[3]
    table.remove(flight, position(flight, turn))
    local left = table.concat(flight, ' ')
    redis.call('HSET', key, 'flight', left)
    local fields = { field .. 'req', field .. 'cid', field .. 'body', field .. 'cancel', field .. 'in', field .. 'msg' }
    for _, input in ipairs(words(found[5])) do
        fields[#fields + 1] = 'i:' .. input
        fields[#fields + 1] = 'i:' .. input .. ':opt'
        fields[#fields + 1] = 'r:' .. input
    end
    for _, message in ipairs(words(found[6])) do
        -- The worker reports what becomes of a message that it has seen. It sees no more of them.
        local cid = redis.call('HGET', key, 'm:' .. message .. ':cid')
        tell({ cid }, 'steered', message, 'kind', kind == 'lost' and kind or 'over', 'body', '')
        fields[#fields + 1] = 'm:' .. message
        fields[#fields + 1] = 'm:' .. message .. ':cid'
    end
    for from = 1, #fields, 1000 do
        redis.call('HDEL', key, unpack(fields, from, math.min(from + 999, #fields)))
    end
    if #flight == 0 then
        redis.call('SREM', ns .. 'w:' .. wid .. ':b', id)
    end
    redis.call('HINCRBY', key, 'answers', 1)
    local answers = redis.call('HGET', key, 'answers')
    note_request(request, 'id', id, 'turn', turn, 'kind', kind, 'body', body, 'answers', answers)
    tell(words(found[4]), 'verdict', request, 'id', id, 'turn', turn, 'kind', kind, 'body', body, 'answers', answers)
    return answers, left
end

-- Takes a session from a worker whose lease is gone: every turn in flight is lost, and events that it had not sent. A
-- session that was never built is removed. Returns whether the session is still there.
local function abandon(id)
    local key = session_key(id)
    local found = redis.call('HMGET', key, 'wid', 'flight', 'rev')
    for _, turn in ipairs(words(found[2])) do
        answer(id, turn, 'lost', '')
    end
    redis.call('SREM', ns .. 'w:' .. found[1] .. ':s', id)
    redis.call('SREM', ns .. 'w:' .. found[1] .. ':b', id)
    redis.call('HSET', key, 'wid', '')
    tell_gap(id)
    if not found[3] then
        remove(id)
        return false
    elseif redis.call('HGET', key, 'archived') == '1' then
        end_feeds(id)
    end
    return true
end

-- Abandons a session if its worker is gone. Returns whether the session is there, its worker or '', and the worker's
-- limit of queued turns and state.
local function settle_owner(id)
    local found = redis.call('HMGET', session_key(id), 'made', 'wid')
    local wid = found[2] or ''
    if not found[1] then
        return false, ''
    elseif wid == '' then
        return true, ''
    end
    local max, limit, state = lease_of(wid)
    if not max then
        return abandon(id), ''
    end
    return true, wid, limit, state
end

-- Marks a turn as cancelled, with the first reason. Its input requests that have no response end with that.
local function cancel(id, turn, reason)
    local key, field = session_key(id), 't:' .. turn .. ':'
    if redis.call('HSETNX', key, field .. 'cancel', reason) == 1 then
        for _, input in ipairs(words(redis.call('HGET', key, field .. 'in'))) do
            redis.call('HDEL', key, 'i:' .. input, 'i:' .. input .. ':opt')
        end
    end
end

-- The live worker with the fewest busy sessions, then the fewest sessions, that has room. A session without a turn in
-- flight can be evicted, so it takes no room.
local function choose_worker()
    local best, best_busy, best_all
    for _, wid in ipairs(redis.call('SMEMBERS', ns .. 'workers')) do
        local max, _, state = lease_of(wid)
        if max and state == 'open' then
            local busy = redis.call('SCARD', ns .. 'w:' .. wid .. ':b')
            local all = redis.call('SCARD', ns .. 'w:' .. wid .. ':s')
            local is_better = not best or busy < best_busy or (busy == best_busy and all < best_all)
                or (busy == best_busy and all == best_all and wid < best)
            if busy < max and is_better then
                best, best_busy, best_all = wid, busy, all
            end
        end
    end
    return best
end

-- Gives a session to a worker, with a new epoch.
local function give(id, wid)
    redis.call('INCR', ns .. 'epoch')
    redis.call('HSET', session_key(id), 'wid', wid, 'epoch', redis.call('GET', ns .. 'epoch'))
    redis.call('SADD', ns .. 'w:' .. wid .. ':s', id)
end

-- The worker that runs the next turn of a session without one in flight: its own, or another one if that has no lease or
-- gets no more sessions. `state` is that of its own. Returns nil if no worker has room.
local function place(id, wid, state)
    if state == 'open' then
        return wid
    end
    local chosen = choose_worker()
    if chosen then
        if wid ~= '' then
            redis.call('SREM', ns .. 'w:' .. wid .. ':s', id)
            wake(wid, id)
        end
        give(id, chosen)
    end
    return chosen
end

-- Puts a turn into the list of those in flight, and wakes the worker.
local function put_in_flight(id, wid, flight, turn, request, cid, body)
    local key, field = session_key(id), 't:' .. turn .. ':'
    redis.call('HSET', key, 'flight', table.concat(flight, ' '), field .. 'req', request, field .. 'cid', cid,
        field .. 'body', body)
    redis.call('SADD', ns .. 'w:' .. wid .. ':b', id)
    note_request(request, 'id', id, 'turn', turn)
    if #flight == 1 and turn ~= '0' and #body <= LONGEST_COPY then
        local found = redis.call('HMGET', key, 'epoch', 'feeds')
        -- A look begins the feeds before the turn.
        if #words(found[2]) == 0 then
            wake(wid, id, 'epoch', found[1], 'turn', turn, 'request', request, 'cid', cid, 'body', body)
            return
        end
    end
    wake(wid, id)
end

-- Adds a client to those that are told how a turn in flight ends.
local function add_client(id, turn, cid)
    local key, field = session_key(id), 't:' .. turn .. ':cid'
    local cids = words(redis.call('HGET', key, field))
    if not position(cids, cid) then
        cids[#cids + 1] = cid
        redis.call('HSET', key, field, table.concat(cids, ' '))
    end
end

-- The answer to a request that was seen before, or nil. The client may have a new stream: it is told too.
local function repeated(id, request, cid)
    local known = redis.call('HMGET', ns .. 'req:' .. request, 'turn', 'kind', 'body', 'answers')
    if known[2] == 'tombstone' then
        return { 'tombstone' }
    elseif known[2] then
        return { 'answered', known[1], known[2], known[3], known[4] }
    elseif known[1] then
        add_client(id, known[1], cid)
        return { 'begun', known[1] }
    end
    return nil
end

-- Whether a worker has the session with this epoch: the fence.
local function is_owner(id, wid, epoch)
    local owner = redis.call('HMGET', session_key(id), 'wid', 'epoch')
    return owner[1] == wid and owner[2] == epoch
end

-- Writes a record whose arguments begin at ARGV[first]: the revision that the writer has seen ('' for a new record), the
-- next one, how many messages are stored ('' to replace them), the time of creation in milliseconds, the header, the
-- summary, the labels, whether it is archived, the last turn that may have been numbered, and the messages. Labels and
-- archive are left as they are where `keeps_settings` is set, if the record has them. Returns 'ok', 'already',
-- 'conflict', or 'damaged' with the number of messages.
local function write_record(id, first, keeps_settings)
    local seen, next, stored, created = ARGV[first], ARGV[first + 1], ARGV[first + 2], ARGV[first + 3]
    local key = session_key(id)
    local list = key .. ':h'
    local found = redis.call('HMGET', key, 'rev', 'past', 'labels', 'archived', 'turn')
    local past = words(found[2])
    if position(past, next) then
        return 'already'
    elseif (found[1] or '') ~= seen then
        return 'conflict'
    end
    if stored == '' then
        redis.call('UNLINK', list)
    else
        local len = redis.call('LLEN', list)
        if tostring(len) ~= stored then
            return 'damaged', tostring(len)
        end
    end
    for from = first + 9, #ARGV, 1000 do
        redis.call('RPUSH', list, unpack(ARGV, from, math.min(from + 999, #ARGV)))
    end
    past[#past + 1] = next
    if #past > PAST_REVISIONS then
        table.remove(past, 1)
    end
    local labels, archived, turn = ARGV[first + 6], ARGV[first + 7], ARGV[first + 8]
    if keeps_settings then
        labels, archived = found[3] or labels, found[4] or archived
    end
    redis.call('HSET', key, 'made', '1', 'rev', next, 'past', table.concat(past, ' '), 'head', ARGV[first + 4],
        'sum', ARGV[first + 5], 'labels', labels, 'archived', archived)
    if below(found[5] or '0', turn) then
        redis.call('HSET', key, 'turn', turn)
    end
    if seen == '' then
        redis.call('ZADD', ns .. 'idx', created, id)
    end
    return 'ok'
end

-- What a list shows of a session.
local function list_row(id, created)
    local record = redis.call('HMGET', session_key(id), 'sum', 'labels', 'archived', 'wid', 'flight', 'fault')
    local flight = lease_of(record[4]) and record[5] or ''
    return { id, created, record[1] or '', record[2] or '', record[3] or '', flight, record[6] and '1' or '0' }
end
