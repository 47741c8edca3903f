#!lua flags=allow-oom
-- interrupt: tells a turn to stop. A queued turn is withdrawn at once. The first turn in flight is marked, for its
-- worker; its input requests end with that, so that no later response is accepted.
--
-- ARGV: id, turn ('' for the first in flight), the reason, a name for this request.
-- Returns {'ok', turn}, {'missing'}, {'archived'}, or {'idle'} if that turn is not in flight.
-- Twice: the second call of one request changes nothing, for ten minutes: it stops no later turn. A second interrupt of
-- one turn leaves the first reason.
local id, turn, reason, request = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local known = redis.call('HMGET', ns .. 'req:' .. request, 'kind', 'turn')
if known[1] == 'interrupted' then
    return { 'ok', known[2] }
end
local there, wid = settle_owner(id)
if not there then
    return { 'missing' }
end
local found = redis.call('HMGET', session_key(id), 'archived', 'flight')
local flight = words(found[2])
if turn == '' then
    turn = flight[1]
end
local at = turn and position(flight, turn)
if not at or turn == '0' then
    return { found[1] == '1' and #flight == 0 and 'archived' or 'idle' }
elseif at > 1 then
    answer(id, turn, 'withdrawn', reason)
else
    cancel(id, turn, reason)
end
note_request(request, 'id', id, 'kind', 'interrupted', 'turn', turn)
wake(wid, id)
return { 'ok', turn }
