#!lua
-- begin: accepts a turn of a session, once for each request, and chooses the worker that runs it.
--
-- ARGV: id, request, cid, the highest count of answers that the client has seen, what to do if the session is busy
-- ('refuse', 'queue' or 'interrupt'), what the worker needs.
-- Returns {'begun', turn}; or why not: {'missing'}, {'archived'}, {'shorter', answers} if fewer turns were answered than
-- the client has seen, {'faulted', message}, {'busy', turn}, {'full', queued, limit}, {'capacity'}.
-- Twice: {'begun', turn} while the turn is in flight, then {'answered', turn, kind, body, answers} for ten minutes.
-- {'tombstone'} if `outcome` has asked for the request before it came.
local id, request, cid, seen, when_busy, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local key = session_key(id)
local there, wid, limit, state = settle_owner(id)
local known = repeated(id, request, cid)
if known then
    return known
elseif not there then
    return { 'missing' }
end
local found = redis.call('HMGET', key, 'archived', 'answers', 'flight', 'fault')
local answers, flight = found[2] or '0', words(found[3])
if found[1] == '1' then
    return { 'archived' }
elseif below(answers, seen) then
    return { 'shorter', answers }
elseif found[4] and flight[1] ~= '0' then
    return { 'faulted', found[4] }
end
local queued = #flight - 1
if #flight > 0 and when_busy == 'refuse' then
    return { 'busy', flight[1] }
elseif #flight > 0 and queued >= limit then
    return { 'full', tostring(queued), tostring(limit) }
end
if #flight == 0 then
    wid = place(id, wid, state)
    if not wid then
        return { 'capacity' }
    end
end
redis.call('HINCRBY', key, 'turn', 1)
local turn = redis.call('HGET', key, 'turn')
if when_busy == 'interrupt' and #flight > 0 then
    -- A build is not cancelled: the new turn needs the agent.
    if flight[1] ~= '0' then
        cancel(id, flight[1], 'superseded')
    end
    table.insert(flight, 2, turn)
else
    flight[#flight + 1] = turn
end
put_in_flight(id, wid, flight, turn, request, cid, body)
return { 'begun', turn }
