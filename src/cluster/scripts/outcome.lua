#!lua flags=allow-oom
-- outcome: what has become of a request whose answer was lost. A request that the engine has never seen gets a
-- tombstone: should it come later, it is refused.
--
-- ARGV: id, request.
-- Returns {'answered', turn, kind, body, answers}, {'running', turn} or {'tombstone'}.
-- Twice: the second call finds what the first has found, or what has happened since.
local id, request = ARGV[2], ARGV[3]
settle_owner(redis.call('HGET', ns .. 'req:' .. request, 'id') or id)
local known = redis.call('HMGET', ns .. 'req:' .. request, 'turn', 'kind', 'body', 'answers')
if known[2] and known[2] ~= 'tombstone' then
    return { 'answered', known[1] or '', known[2], known[3] or '', known[4] or '' }
elseif known[1] and not known[2] then
    return { 'running', known[1] }
end
-- A turn may be in flight for longer than its request is remembered.
local key = session_key(id)
for _, turn in ipairs(words(redis.call('HGET', key, 'flight'))) do
    if redis.call('HGET', key, 't:' .. turn .. ':req') == request then
        return { 'running', turn }
    end
end
note_request(request, 'id', id, 'kind', 'tombstone')
return { 'tombstone' }
