#!lua flags=allow-oom
-- ask: makes an input request of the first turn in flight known.
--
-- ARGV: id, wid, epoch, turn, input, the request, its options as a JSON array of strings ('' for none).
-- Returns {'ok'}, {'cancelled', reason} if the turn is told to stop, or {'conflict'} as `finish`.
-- Twice: the second call changes nothing. The id of an input is never used again.
local id, wid, epoch, turn, input = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local key, field = session_key(id), 't:' .. turn .. ':'
if not is_owner(id, wid, epoch) or words(redis.call('HGET', key, 'flight'))[1] ~= turn then
    return { 'conflict' }
end
local reason = redis.call('HGET', key, field .. 'cancel')
if reason then
    return { 'cancelled', reason }
end
local inputs = words(redis.call('HGET', key, field .. 'in'))
if not position(inputs, input) then
    inputs[#inputs + 1] = input
    redis.call('HSET', key, 'i:' .. input, ARGV[7], field .. 'in', table.concat(inputs, ' '))
    if ARGV[8] ~= '' then
        redis.call('HSET', key, 'i:' .. input .. ':opt', ARGV[8])
    end
end
return { 'ok' }
