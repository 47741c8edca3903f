#!lua flags=allow-oom
-- settle: ends the worker's wait for an input request, after its timeout or after a wake-up.
--
-- ARGV: id, wid, epoch, input.
-- Returns {'answered', response}, {'claimed'} if the timeout has won, {'cancelled'} if a cancellation has, or
-- {'conflict'} as `finish`.
-- Twice: the same answer, until the end of the turn.
local id, input = ARGV[2], ARGV[5]
local key = session_key(id)
if not is_owner(id, ARGV[3], ARGV[4]) then
    return { 'conflict' }
end
local response = redis.call('HGET', key, 'r:' .. input)
if response == '' then
    return { 'claimed' }
elseif response then
    return { 'answered', response }
elseif redis.call('HDEL', key, 'i:' .. input, 'i:' .. input .. ':opt') > 0 then
    redis.call('HSET', key, 'r:' .. input, '')
    return { 'claimed' }
end
return { 'cancelled' }
