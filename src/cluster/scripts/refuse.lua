#!lua flags=allow-oom
-- refuse: ends a turn in flight that its worker will not run, with the reason. The record is left as it is. If a build
-- (turn 0) has failed, every turn in flight gets the reason. If the session was never kept, no key remains.
--
-- ARGV: id, wid, epoch, turn, request, the reason.
-- Returns {'ok'}, {'already'}, or {'conflict'} as `finish`.
-- Twice: {'already'}.
local id, wid, epoch, turn, request, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local key = session_key(id)
if redis.call('HGET', ns .. 'req:' .. request, 'kind') == 'refused' then
    return { 'already' }
elseif not is_owner(id, wid, epoch) then
    return { 'conflict' }
end
local flight = words(redis.call('HGET', key, 'flight'))
if not position(flight, turn) then
    return { 'conflict' }
end
local is_kept = redis.call('HEXISTS', key, 'rev') == 1
for _, other in ipairs(flight) do
    if other == turn or turn == '0' or not is_kept then
        answer(id, other, 'refused', body)
    end
end
if not is_kept then
    redis.call('SREM', ns .. 'w:' .. wid .. ':s', id)
    remove(id)
end
return { 'ok' }
