#!lua flags=allow-oom
-- outcome: what has become of a request whose answer was lost. A request that the engine has never seen gets a
-- tombstone: should it come later, it is refused.
--
-- ARGV: id, request; then the client that is to be told how a turn in flight ends, or nothing.
-- Returns {'answered', turn, kind, body, answers}, {'running', turn} or {'tombstone'}.
-- Twice: the second call finds what the first has found, or what has happened since.
local id, request, cid = ARGV[2], ARGV[3], ARGV[4]
id = redis.call('HGET', ns .. 'req:' .. request, 'id') or id
settle_owner(id)
local known = redis.call('HMGET', ns .. 'req:' .. request, 'turn', 'kind', 'body', 'answers')
if known[2] and known[2] ~= 'tombstone' then
    return { 'answered', known[1] or '', known[2], known[3] or '', known[4] or '' }
end
local turn = not known[2] and known[1]
if not turn then
    -- A turn may be in flight for longer than its request is remembered.
    local key = session_key(id)
    for _, other in ipairs(words(redis.call('HGET', key, 'flight'))) do
        if redis.call('HGET', key, 't:' .. other .. ':req') == request then
            turn = other
        end
    end
end
if not turn then
    note_request(request, 'id', id, 'kind', 'tombstone')
    return { 'tombstone' }
end
if cid then
    add_client(id, turn, cid)
end
return { 'running', turn }
