#!lua flags=allow-oom
-- respond: answers an input request. The first of a response, a timeout and a cancellation wins.
--
-- ARGV: id, request, input, 'answer' or 'declined', the text of an answer, the response for the worker.
-- Returns {'ok'}, {'missing'}, {'settled'} if the input is not pending, or {'invalid'} if the answer is none of the
-- options; then it is still pending.
-- Twice: a response that has won is {'ok'} again, for ten minutes.
local id, request, input = ARGV[2], ARGV[3], ARGV[4]
local key = session_key(id)
if redis.call('HGET', ns .. 'req:' .. request, 'kind') == 'responded' then
    return { 'ok' }
end
local there, wid = settle_owner(id)
if not there then
    return { 'missing' }
elseif redis.call('HEXISTS', key, 'i:' .. input) == 0 then
    return { 'settled' }
end
local options = redis.call('HGET', key, 'i:' .. input .. ':opt')
if options and ARGV[5] == 'answer' and not position(cjson.decode(options), ARGV[6]) then
    return { 'invalid' }
end
redis.call('HDEL', key, 'i:' .. input, 'i:' .. input .. ':opt')
redis.call('HSET', key, 'r:' .. input, ARGV[7])
note_request(request, 'id', id, 'kind', 'responded')
wake(wid, id)
return { 'ok' }
